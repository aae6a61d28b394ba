"""Results of all test sets of a run: transcripts, scores, records, reports."""

import contextlib
import logging
from typing import Dict, Iterator, List, Mapping, Protocol, Sequence

from asr_core.data.read_errors import UnusableSet
from asr_core.decoding.method import BEST
from asr_core.decoding.options import TestOptions
from asr_core.decoding.output.audio_players import players_for
from asr_core.decoding.output.file_names import ResultFiles
from asr_core.decoding.output.options import ScoreOptions
from asr_core.decoding.output.records import RecordFormatter, answer_records, write_records
from asr_core.decoding.output.results import SetResult, format_table, write_recogs, write_scores
from asr_core.decoding.output.speed import Speed
from asr_core.decoding.output.utterance import Decoded
from asr_core.text.html_report import render, words_by_id
from asr_core.text.normalize import normalize_text
from asr_core.text.scoring import Score, Utterance, characters
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic


class ScoredCorpus(Protocol):
    """The part of :class:`~asr_core.data.corpus.Corpus` that scoring uses."""

    @property
    def scoring_normalization(self) -> str: ...

    def normalize(self, text: str) -> str:
        """Return a transcript as the model learns to write it."""
        ...


class ResultCollector:
    """The results of all test sets of a run, written as they come; :meth:`report` scores them.

    Args:
      corpus: whose transcripts are the references.
      tokenizer: the model's.
      files: names of result files.
      test, scoring: options.
      formatter: makes records.
    """

    def __init__(
        self,
        *,
        corpus: ScoredCorpus,
        tokenizer: Tokenizer,
        files: ResultFiles,
        test: TestOptions,
        scoring: ScoreOptions,
        formatter: RecordFormatter,
    ) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._files = files
        self._test = test
        self._normalization = scoring.normalize or corpus.scoring_normalization
        self._cer = scoring.cer
        self._formatter = formatter
        self._results: List[SetResult] = []
        self._decoded: List[Sequence[Decoded]] = []
        self._failures: List[str] = []

    @contextlib.contextmanager
    def accepting_failures(self, name: str) -> Iterator[None]:
        """Return a context in which a set may prove unusable; :meth:`report` raises that later.

        Nothing of the set is written, so that results of an earlier decoding stay as they are.
        """
        try:
            yield
        except UnusableSet as e:
            self._failures.append(f"test set {name}: {e}")
            logging.error("test set %s is left out: %s", name, e)

    def add(
        self,
        name: str,
        given: Sequence[Decoded],
        compute_seconds: float,
        left_out: int = 0,
        total_seconds: float = 0.0,
    ) -> None:
        """Write the transcripts and records of a test set.

        Args:
          name: the test set's.
          given: its utterances; of several with the same id only the first counts.
          compute_seconds: time spent in encoder and search.
          left_out: number of cuts that could not be decoded.
          total_seconds: time since the set was opened.
        """
        decoded = list({d.cut_id: d for d in reversed(given)}.values())[::-1]
        result = SetResult(
            name=name,
            utterances=self._utterances(decoded),
            speed=Speed(sum(d.audio_seconds for d in decoded), compute_seconds, total_seconds),
            left_out=left_out + len(given) - len(decoded),
        )
        logging.info("%s: %s", name, result.speed)
        write_recogs(result, self._files)
        refs = [self._corpus.normalize(d.text) for d in decoded]
        write_records(self._formatter, self._files, name, decoded, refs)
        self._results.append(result)
        self._decoded.append(decoded if self._formatter.opts.html_report else [])

    def _utterances(self, decoded: Sequence[Decoded]) -> Dict[str, List[Utterance]]:
        """Return references and hypotheses in words, or characters, by name of the result."""
        out: Dict[str, List[Utterance]] = {}
        for d in decoded:
            ref = normalize_text(self._corpus.normalize(d.text), self._normalization).split()
            for result, found in d.hypotheses.items():
                text = self._tokenizer.decode(found.tokens) if found.words is None else " ".join(found.words)
                if self._normalization != "none":
                    text = normalize_text(text, self._normalization)
                hyp = text.split()
                scored = Utterance(d.cut_id, ref, hyp, d.speaker)
                if self._test.score_characters:
                    scored = Utterance(d.cut_id, characters(ref), characters(hyp), d.speaker)
                out.setdefault(result, []).append(scored)
        return out or {BEST: []}

    def report(self, title: str) -> None:
        """Score all test sets, write the result files, and print the table.

        Raises:
          UserError: a test set was unusable.
        """
        if self._results and not self._test.skip_scoring:
            self._report(title)
        if self._failures:
            raise UserError("; ".join(self._failures))

    def _report(self, title: str) -> None:
        unit = "character" if self._test.score_characters else "word"
        scores = [write_scores(result, self._files, unit) for result in self._results]
        print(format_table(self._results, scores, f"{unit} error rates, {title}", self._cer))
        if self._formatter.opts.html_report:
            self._write_reports(title, scores)

    def _write_reports(self, title: str, scores: Sequence[Mapping[str, Score]]) -> None:
        """Write an HTML page for the best result of each test set."""
        for result, decoded, by_name in zip(self._results, self._decoded, scores):
            best, score = next(iter(by_name.items()))
            path = self._files.path(self._files.beside("report", ".html"), result.name, best)
            audio = {d.cut_id: d.audio for d in decoded if d.audio is not None}
            players = players_for(audio, score, self._formatter.opts, path.parent)
            records = answer_records(self._formatter, ((d, "") for d in decoded), best)
            page = render(
                f"{result.name}: {title}",
                result.name,
                result.utterances[best],
                score,
                players,
                words_by_id(list(records)),
            )
            write_text_atomic(path, page)
            logging.info("report: %s", path)
