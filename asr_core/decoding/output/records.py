"""What decoding tells besides the words, as JSON lines: times, confidences, n-best lists."""

import json
import logging
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from asr_core.decoding.confidence import aggregate
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.offline import Decoded
from asr_core.decoding.output.calibration import FILE_NAME, Calibration, kind_of, load_calibrations
from asr_core.decoding.output.file_names import ResultFiles
from asr_core.decoding.output.options import DetailOptions
from asr_core.decoding.output.timestamps import FRAME_SHIFT, TimedWord, timed_words, token_times
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.files import write_text_atomic


class RecordFormatter(NamedTuple):
    """Turns hypotheses into records.

    Attributes:
      tokenizer: the model's.
      frame_seconds: duration of a frame of encoder output.
      opts: what is wanted.
      kind: what confidences are of, see :func:`~asr_core.decoding.output.calibration.kind_of`.
      calibration: makes probabilities of them; None where there is none.
    """

    tokenizer: Tokenizer
    frame_seconds: float
    opts: DetailOptions
    kind: str = ""
    calibration: Optional[Calibration] = None

    @staticmethod
    def make(
        model: Any, tokenizer: Tokenizer, opts: DetailOptions, method: str, chunk_size: int, folder: Path
    ) -> "RecordFormatter":
        """One for the results of a model.

        Args:
          model: has ``geometry``.
          tokenizer, opts: see above.
          method: the search's name.
          chunk_size: of the encoder, in 50-Hz frames; -1 for whole utterances.
          folder: where the checkpoint is, and the calibration of its confidences, if there is one.
        """
        seconds = model.geometry.subsampling_factor * FRAME_SHIFT
        if not opts.write_confidence:
            return RecordFormatter(tokenizer, seconds, opts)
        kind = kind_of(method, chunk_size, opts)
        calibration = load_calibrations(folder).get(kind)
        where = (
            f"calibrated by {folder / FILE_NAME}"
            if calibration
            else f"not calibrated: {folder / FILE_NAME} has none of this kind"
        )
        logging.info("confidences are %s, %s", kind, where)
        return RecordFormatter(tokenizer, seconds, opts, kind, calibration)

    def hypothesis(self, hyp: Hypothesis, duration: float, offset: float = 0.0) -> Dict[str, Any]:
        """Text, tokens and words with their times in an utterance of ``duration`` seconds, which begins at ``offset``."""
        words = timed_words(hyp, self.tokenizer, self.frame_seconds, duration)
        return {
            "text": " ".join(word.word for word in words),
            "log_prob": round(hyp.log_prob, 4),
            "tokens": [self.tokenizer.pieces[token] for token in hyp.tokens],
            "timestamps": [round(offset + t, 3) for t in token_times(hyp, self.frame_seconds, duration)],
            "words": [self._word(word, offset) for word in words],
        }

    def _word(self, word: TimedWord, offset: float) -> Dict[str, Any]:
        times = (None if t is None else round(offset + t, 3) for t in (word.start, word.end))
        entry: Dict[str, Any] = {"w": word.word, **dict(zip(("start", "end"), times))}
        if word.confidences:
            raw = aggregate(word.confidences, self.opts.confidence_aggregation)
            entry["confidence"] = round(self.calibration(raw) if self.calibration else raw, 6)
            if self.calibration:
                entry["raw_confidence"] = round(raw, 6)
        return entry

    def utterance(self, decoded: Decoded, ref: str) -> Dict[str, Any]:
        """What all records of an utterance begin with."""
        entry: Dict[str, Any] = {
            "id": decoded.cut_id,
            "ref": ref,
            "duration": round(decoded.audio_seconds, 4),
        }
        if decoded.speaker:
            entry["speaker"] = decoded.speaker
        if self.kind:
            entry["confidence_kind"] = self.kind
        return entry


def write_details(
    describer: RecordFormatter, files: ResultFiles, name: str, decoded: List[Decoded], refs: List[str]
) -> None:
    """Write the records of a test set that were asked for.

    Args:
      describer: makes them.
      files: names of result files.
      name: of the test set.
      decoded: its utterances.
      refs: their references.
    """
    opts = describer.opts
    ordered = sorted(zip(decoded, refs), key=lambda pair: pair[0].cut_id)
    if opts.write_timestamps or opts.write_confidence:
        for key in decoded[0].hypotheses if decoded else [""]:
            _write(
                files.path(files.beside("timestamps", ".jsonl"), name, key),
                best_records(describer, ordered, key),
            )
    if opts.write_nbest:
        lists = (
            (d, ref, [describer.hypothesis(hyp, d.audio_seconds) for hyp in d.nbest]) for d, ref in ordered
        )
        records = ({**describer.utterance(d, ref), "nbest": nbest} for d, ref, nbest in lists)
        _write(files.path(files.beside("nbest", ".jsonl"), name, ""), records)


def best_records(
    describer: RecordFormatter, decoded: Iterable[Tuple[Decoded, str]], key: str
) -> Iterator[Dict[str, Any]]:
    """A record for each utterance, of which come what was decoded and the reference, with the result called ``key``."""
    for d, ref in decoded:
        yield {**describer.utterance(d, ref), **describer.hypothesis(d.hypotheses[key], d.audio_seconds)}


def _write(path: Path, records: Iterable[Dict[str, Any]]) -> None:
    write_text_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    logging.info("%s", path)
