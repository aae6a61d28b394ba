"""Names of results and of their files, as icefall has them and users' scripts expect them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from asr_core.decoding.method import BEST, Method
from asr_core.decoding.options import FLOAT32, SearchOptions
from asr_core.encoders.chunk_options import Chunk
from asr_core.models.checkpoint_options import CheckpointOptions


@dataclass(frozen=True)
class ResultFiles:
    """Paths of the results of a test set; each name has the placeholders ``{set}`` and ``{key}``.

    Attributes:
      folder: the files' folder.
      recogs, errs, summary: names.
      key: name of the result, or the common prefix of several results' names.
    """

    folder: Path
    recogs: str
    errs: str
    summary: str
    key: str

    def full_key(self, result: str) -> str:
        """Return the name under which summaries list a method's ``result``."""
        return self.key if result == BEST else f"{self.key}_{result}"

    def path(self, name: str, set_name: str, result: str = BEST) -> Path:
        """Return the file called ``name`` for a result of a test set.

        It carries the result's name where the method has several.
        """
        key = "" if result == BEST else f"-{self.full_key(result)}"
        return self.folder / name.format(set=set_name, key=key)

    def beside(self, kind: str, ending: str) -> str:
        """Return the name of a file ``<kind>-...<ending>`` that goes with ``recogs-....txt``."""
        return kind + self.recogs[len("recogs") : -len(".txt")] + ending

    @property
    def log(self) -> Path:
        """Prefix of the path of the log of these results."""
        rest = self.recogs[self.recogs.index("{set}") + len("{set}") : -len(".txt")]
        return self.folder / ("log-decode-" + rest.replace("{key}", "").lstrip("-_"))


def offline_files(
    method: Method,
    opts: SearchOptions,
    checkpoint: CheckpointOptions,
    *,
    chunk: Optional[Chunk] = None,
    context_size: int = 0,
    neural_lm: bool = False,
    dtype: str = FLOAT32,
) -> ResultFiles:
    """Name the files of decoding whole utterances, below ``<exp_dir>/<decoding method>``.

    Args:
      method, opts: the search.
      checkpoint: whose weights.
      chunk: chunk of a causal model.
      context_size: context size of a stateless predictor; 0 without one.
      neural_lm: whether a neural language model is used.
      dtype: precision of the model.
    """
    suffix = (
        _checkpoint_and_chunk(checkpoint, chunk)
        + method.names.file_part(opts, context_size, neural_lm)
        + _adjustments(opts)
        + _averaging(checkpoint, "_")
        + ("" if dtype == FLOAT32 else f"_{dtype}")
    )
    return ResultFiles(
        folder=Path(checkpoint.exp_dir) / method.name,
        recogs=f"recogs-{{set}}{{key}}-{suffix}.txt",
        errs=f"errs-{{set}}{{key}}-{suffix}.txt",
        summary=f"wer-summary-{{set}}-{suffix}.txt",
        key=method.names.key(opts),
    )


def streaming_files(
    method: Method,
    opts: SearchOptions,
    checkpoint: CheckpointOptions,
    *,
    chunk: Chunk,
    label: str = "",
    dtype: str = FLOAT32,
) -> ResultFiles:
    """Name the files of decoding streams, below ``<exp_dir>/streaming/<decoding method>``.

    Args:
      method, opts: the search.
      checkpoint: whose weights.
      chunk: chunk of the encoder.
      label: the user's addition to the names.
      dtype: precision of the model.
    """
    key = method.names.streaming_key(opts)
    suffix = (
        _checkpoint_and_chunk(checkpoint, chunk)
        + _adjustments(opts)
        + _averaging(checkpoint, "-")
        + ("" if dtype == FLOAT32 else f"-{dtype}")
        + (f"-{label}" if label else "")
    )
    return ResultFiles(
        folder=Path(checkpoint.exp_dir) / "streaming" / method.name,
        recogs=f"recogs-{{set}}_{key}_{suffix}.txt",
        errs=f"errs-{{set}}_{key}_{suffix}.txt",
        summary=f"wer-summary_{{set}}_{key}_{suffix}.txt",
        key=key,
    )


def _checkpoint_and_chunk(checkpoint: CheckpointOptions, chunk: Optional[Chunk]) -> str:
    part = f"{checkpoint.stem}_avg-{checkpoint.avg}"
    return part + (f"_chunk-{chunk.size}_left-context-{chunk.left_context}" if chunk else "")


def _averaging(checkpoint: CheckpointOptions, separator: str) -> str:
    part = f"{separator}use-averaged-model" if checkpoint.use_averaged_model else ""
    return part + (f"{separator}use-ema" if checkpoint.use_ema else "")


def _adjustments(opts: SearchOptions) -> str:
    penalty = f"_blank-penalty-{opts.blank_penalty}" if opts.blank_penalty else ""
    return penalty + (f"_temperature-{opts.temperature}" if opts.temperature != 1 else "")
