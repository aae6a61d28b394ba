"""What decode and streaming_decode make of hypotheses: transcripts, scores, details, a report. Not a program of its own."""

import logging
from typing import Any, Dict, List, Mapping, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params


def add_result_options(parser: Any, defaults: Mapping[str, Any], streaming: bool = False) -> None:
    """Add the options of scoring and details; n-best lists are for whole utterances only."""
    import dataclasses

    from asr_core.decoding.output.options import DetailOptions, ScoreOptions
    from asr_core.utils.options import add_options

    add_options(parser, ScoreOptions, defaults)
    names = [f.name for f in dataclasses.fields(DetailOptions) if not (streaming and f.name == "write_nbest")]
    add_options(parser, DetailOptions, defaults, only=names)


def checked_details(params: Mapping[str, Any], method_name: str) -> Tuple[Any, Any]:
    """:class:`~asr_core.decoding.output.options.ScoreOptions` and ``DetailOptions`` of ``params``.

    Raises:
      UserError: a value makes no sense, or the method has no n-best list.
    """
    from asr_core.decoding.output.options import DetailOptions, ScoreOptions, check_details
    from asr_core.decoding.registry import METHODS
    from asr_core.text.normalize import check_normalization

    scoring, details = from_params(ScoreOptions, params), from_params(DetailOptions, params)
    check_details(details)
    check_normalization(scoring.normalize or "none")
    if details.html_report and params.get("skip_scoring"):
        raise UserError("--html-report shows scores: leave out --skip-scoring")
    if details.write_nbest and METHODS[method_name].nbest is None:
        able = ", ".join(name for name, method in METHODS.items() if method.nbest is not None)
        raise UserError(f"--write-nbest: {method_name} has no n-best list; these have: {able}")
    return scoring, details


class ResultCollector:
    """The results of all test sets of a run, written as they come; :meth:`report` scores them.

    Args:
      corpus: a :class:`~asr_core.data.corpus.Corpus`.
      tokenizer: the model's.
      files: names of result files.
      test, scoring: options.
      describer: makes records of details.
    """

    def __init__(
        self, corpus: Any, tokenizer: Any, files: Any, test: Any, scoring: Any, describer: Any
    ) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._files = files
        self._test = test
        self._mode = scoring.normalize or corpus.scoring_normalization
        self._cer = scoring.cer
        self._describer = describer
        self._results: List[Any] = []
        self._decoded: List[List[Any]] = []

    def add(self, name: str, decoded: List[Any], compute_seconds: float) -> None:
        """Write the transcripts and details of a test set."""
        from asr_core.decoding.output.records import write_details
        from asr_core.decoding.output.results import SetResult, write_recogs

        result = SetResult(
            name, self._utterances(decoded), sum(d.audio_seconds for d in decoded), compute_seconds
        )
        write_recogs(result, self._files)
        write_details(
            self._describer, self._files, name, decoded, [self._corpus.normalize(d.text) for d in decoded]
        )
        self._results.append(result)
        self._decoded.append(decoded if self._describer.opts.html_report else [])

    def _utterances(self, decoded: List[Any]) -> Dict[str, List[Any]]:
        """References and hypotheses in words, or characters, by name of the result."""
        from asr_core.text.normalize import normalize_text
        from asr_core.text.scoring import Utterance, characters

        out: Dict[str, List[Any]] = {}
        for d in decoded:
            ref = normalize_text(self._corpus.normalize(d.text), self._mode).split()
            for key, found in d.hypotheses.items():
                text = self._tokenizer.decode(found.tokens) if found.words is None else " ".join(found.words)
                hyp = text.split() if self._mode == "none" else normalize_text(text, self._mode).split()
                pair = (characters(ref), characters(hyp)) if self._test.score_characters else (ref, hyp)
                out.setdefault(key, []).append(Utterance(d.cut_id, *pair, d.speaker))
        return out or {"": []}

    def report(self, title: str) -> None:
        """Score all test sets, write what belongs to it, and print the table."""
        from asr_core.decoding.output.results import format_table, write_scores

        if self._test.skip_scoring:
            return
        unit = "character" if self._test.score_characters else "word"
        scores = [write_scores(result, self._files, unit) for result in self._results]
        print(format_table(self._results, scores, f"{unit} error rates, {title}", self._cer))
        if self._describer.opts.html_report:
            self._write_reports(title, scores)

    def _write_reports(self, title: str, scores: List[Dict[str, Any]]) -> None:
        """An HTML page for the best result of each test set."""
        from asr_core.decoding.output.audio_players import players_for
        from asr_core.decoding.output.records import best_records
        from asr_core.text.html_report import render, words_by_id
        from asr_core.utils.files import write_text_atomic

        for result, decoded, by_key in zip(self._results, self._decoded, scores):
            key, score = next(iter(by_key.items()))  # the best
            path = self._files.path(self._files.beside("report", ".html"), result.name, key)
            audio = {d.cut_id: d.audio for d in decoded if d.audio is not None}
            players = players_for(audio, score, self._describer.opts, path.parent)
            words = words_by_id(list(best_records(self._describer, ((d, "") for d in decoded), key)))
            heading = f"{result.name}: {title}"
            write_text_atomic(
                path, render(heading, result.name, result.utterances[key], score, players, words)
            )
            logging.info("report: %s", path)
