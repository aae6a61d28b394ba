"""Records of hypotheses as JSON lines: times, confidences, n-best lists."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Optional, Sequence, Tuple

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import BEST
from asr_core.decoding.output.calibration import FILE_NAME, Calibration, kind_of, load_calibrations
from asr_core.decoding.output.file_names import ResultFiles
from asr_core.decoding.output.options import RecordOptions
from asr_core.decoding.output.timestamps import FRAME_SHIFT, TimedWord, timed_words, token_times
from asr_core.decoding.output.utterance import Decoded
from asr_core.decoding.output.word_confidence import aggregate
from asr_core.encoders.protocol import FrameGeometry
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.files import write_text_atomic

Record = Dict[str, Any]


@dataclass(frozen=True)
class RecordFormatter:
    """Turns hypotheses into records.

    Attributes:
      tokenizer: the model's.
      frame_seconds: duration of a frame of encoder output.
      opts: options of the records.
      kind: kind of the confidences, see :func:`~asr_core.decoding.output.calibration.kind_of`; ""
        without confidences.
      calibration: maps confidences to probabilities; None to leave them as they are.
    """

    tokenizer: Tokenizer
    frame_seconds: float
    opts: RecordOptions = RecordOptions()
    kind: str = ""
    calibration: Optional[Calibration] = None

    @staticmethod
    def for_run(
        geometry: FrameGeometry,
        tokenizer: Tokenizer,
        opts: RecordOptions,
        *,
        method: str,
        chunk_size: int,
        folder: Path,
    ) -> "RecordFormatter":
        """Make a formatter of the results of decoding with a run's checkpoint.

        Args:
          geometry: the model's.
          tokenizer, opts: see above.
          method: name of the decoding method.
          chunk_size: chunk size of the encoder, in 50-Hz frames; -1 for whole utterances.
          folder: folder of the checkpoint and, if there is one, of its calibration.
        """
        seconds = geometry.subsampling_factor * FRAME_SHIFT
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

    def hypothesis(self, hyp: Hypothesis, duration: float, offset: float = 0.0) -> Record:
        """Return text, tokens and words with their times.

        Args:
          hyp: the hypothesis.
          duration: duration of the utterance, in seconds.
          offset: where the utterance begins, in seconds.
        """
        words = timed_words(hyp, self.tokenizer, self.frame_seconds, duration)
        return {
            "text": " ".join(word.word for word in words),
            "log_prob": round(hyp.log_prob, 4),
            "tokens": [self.tokenizer.pieces[token] for token in hyp.tokens],
            "timestamps": [round(offset + t, 3) for t in token_times(hyp, self.frame_seconds, duration)],
            "words": [self._word(word, offset) for word in words],
        }

    def _word(self, word: TimedWord, offset: float) -> Record:
        times = (None if t is None else round(offset + t, 3) for t in (word.start, word.end))
        entry: Record = {"w": word.word, **dict(zip(("start", "end"), times))}
        if word.confidences:
            raw = aggregate(word.confidences, self.opts.confidence_aggregation)
            entry["confidence"] = round(self.calibration(raw) if self.calibration else raw, 6)
            if self.calibration:
                entry["raw_confidence"] = round(raw, 6)
        return entry

    def utterance(self, decoded: Decoded, ref: str) -> Record:
        """Return the fields that all records of an utterance begin with."""
        entry: Record = {"id": decoded.cut_id, "ref": ref, "duration": round(decoded.audio_seconds, 4)}
        if decoded.speaker:
            entry["speaker"] = decoded.speaker
        if self.kind:
            entry["confidence_kind"] = self.kind
        return entry


def write_records(
    formatter: RecordFormatter,
    files: ResultFiles,
    set_name: str,
    decoded: Sequence[Decoded],
    refs: Sequence[str],
) -> None:
    """Write the records of a test set that the formatter's options ask for.

    Args:
      formatter: makes records.
      files: names of result files.
      set_name: the test set's.
      decoded: its utterances.
      refs: their references.
    """
    opts = formatter.opts
    ordered = sorted(zip(decoded, refs), key=lambda pair: pair[0].cut_id)
    if opts.write_timestamps or opts.write_confidence:
        for result in decoded[0].hypotheses if decoded else [BEST]:
            path = files.path(files.beside("timestamps", ".jsonl"), set_name, result)
            _write(path, answer_records(formatter, ordered, result))
    if opts.write_nbest:
        _write(files.path(files.beside("nbest", ".jsonl"), set_name), _nbest_records(formatter, ordered))


def answer_records(
    formatter: RecordFormatter, decoded: Iterable[Tuple[Decoded, str]], result: str
) -> Iterator[Record]:
    """Yield a record of each utterance with the answer of one result.

    Args:
      formatter: makes records.
      decoded: utterances and their references.
      result: the result's name.
    """
    for d, ref in decoded:
        yield {**formatter.utterance(d, ref), **formatter.hypothesis(d.hypotheses[result], d.audio_seconds)}


def _nbest_records(formatter: RecordFormatter, decoded: Iterable[Tuple[Decoded, str]]) -> Iterator[Record]:
    for d, ref in decoded:
        nbest = [formatter.hypothesis(hyp, d.audio_seconds) for hyp in d.nbest]
        yield {**formatter.utterance(d, ref), "nbest": nbest}


def _write(path: Path, records: Iterable[Record]) -> None:
    write_text_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    logging.info("%s", path)
