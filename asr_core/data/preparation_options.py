"""Options of the preparation of data; light, so that ``--help`` needs no torch."""

from dataclasses import dataclass
from typing import Dict, Tuple

from asr_core.data.options import EMPTY_TEXTS, FeatureOptions, TrustOptions, UnreadableOptions, channel_option
from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import MAX_PROCESSES
from asr_core.utils.options import option


@dataclass
class FbankOptions(FeatureOptions, UnreadableOptions, TrustOptions):
    """Features: kind, input, output and workers."""

    src_dir: str = option(
        "data/manifests",
        "folder of the cut manifests without features, or of lhotse's recordings and supervisions",
        path=PathKind.PLACE,
    )
    output_dir: str = option(
        "data/fbank", "folder for features and for the cut manifests that point to them", path=PathKind.PLACE
    )
    prefix: str = option("", "how the manifests' names begin: <prefix>_cuts_<part>.jsonl.gz")
    parts: Tuple[str, ...] = option(
        ("train", "valid", "test"),
        "parts, separated by commas; those whose manifest is already in --output-dir are skipped; "
        "'' for the only manifest of a corpus, <prefix>_cuts.jsonl.gz",
    )
    perturb_speed: bool = option(
        False, "store the parts whose names begin with train at speeds 0.9 and 1.1 too"
    )
    nj: int = option(2, "number of processes", at_least=1, at_most=MAX_PROCESSES)
    channel: str = channel_option()
    dask_scheduler: str = option(
        "", "address of a Dask scheduler whose cluster computes instead, e.g. tcp://node1:8786"
    )


@dataclass
class NoiseOptions(UnreadableOptions, TrustOptions):
    """Noise: recordings, windows and output."""

    noise_dir: str = option(
        "", "folder of recordings, searched with all its subfolders", path=PathKind.FOLDER
    )
    recordings: Tuple[str, ...] = option(
        (),
        "instead of a folder: manifests of recordings as lhotse writes them, separated by commas",
        path=PathKind.FILE,
    )
    output: str = option("data/manifests/musan_cuts.jsonl.gz", "manifest to write", path=PathKind.OUTPUT)
    sample_rate: int = option(
        16000, "samples per second; other rates are resampled when read", at_least=1000, at_most=1_000_000
    )
    window: float = option(10.0, "seconds of a cut", above=0)
    min_duration: float = option(5.0, "windows that are not longer than this are left out", at_least=0)
    keep_short: bool = option(True, "but recordings shorter than a window are kept, however short")
    channel: str = channel_option()


@dataclass
class TsvOptions(UnreadableOptions):
    """TSV files: inputs, treatment of bad lines, output."""

    train: str = option("", "TSV file of training recordings", path=PathKind.FILE)
    valid: str = option("", "TSV file of validation recordings", path=PathKind.FILE)
    test: str = option("", "TSV file of test recordings", path=PathKind.FILE)
    output_dir: str = option(
        "data/manifests", "folder for <prefix>_cuts_<part>.jsonl.gz", path=PathKind.PLACE
    )
    prefix: str = option("custom", "how the manifests' names begin")
    transcript: str = option(
        "", "also write the training transcripts to this file, one a line", path=PathKind.OUTPUT
    )
    normalize: str = option("none", "case of the transcripts", choices=("none", "lower", "upper"))
    on_bad_line: str = option(
        "error", "a malformed line ends the program, or is skipped with a warning", choices=("error", "skip")
    )
    empty_text: str = option(
        "drop",
        "lines without a transcript: malformed (drop), or recordings without words, such as noise (keep)",
        choices=EMPTY_TEXTS,
    )
    sample_rate: int = option(
        16000, "samples per second; other rates are resampled when read", at_least=1000, at_most=1_000_000
    )
    nj: int = option(2, "number of threads that read audio", at_least=1, at_most=MAX_PROCESSES)
    channel: str = channel_option()

    @property
    def files(self) -> Dict[str, str]:
        """The TSV files that were given, by part."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {part: path for part, path in parts.items() if path}
