"""Options of data, grouped by the code that uses them."""

import argparse
from dataclasses import dataclass
from typing import Optional

from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import MAX_PROCESSES, OnlyWith
from asr_core.utils.options import option

INPUT_STRATEGIES = ("PrecomputedFeatures", "OnTheFlyFeatures", "AudioSamples")
FEATURE_TYPES = ("fbank", "log-mel")
SPEC_AUGMENTS = ("lhotse", "adaptive")
FILLS = ("zero", "mean")
EMPTY_TEXTS = ("drop", "keep")
FIRST, MIX, LOUDEST = "first", "mix", "loudest"


def channel_choice(text: str) -> str:
    """Check the value of ``--channel``: a word or a number from 0."""
    if text in (FIRST, MIX, LOUDEST) or text.isdecimal() and text.isascii() and len(text) < 5:
        return text
    raise argparse.ArgumentTypeError(f"expected {FIRST}, {MIX}, {LOUDEST} or a number from 0, got {text!r}")


def channel_option() -> str:
    """Declare ``--channel``, the field ``channel`` of the options of programs that read audio."""
    return option(
        FIRST,
        "of recordings with several channels. first: the first one, or the one that the manifest names; "
        "mix: the mean of all; loudest: the one with the most energy; or the number of one, from 0",
        type=channel_choice,
    )


def device_features_option(more: str) -> bool:
    """Declare ``--features-on-device``; ``more`` ends its help."""
    return option(False, f"compute features of whole batches on the device of the model; {more}")


@dataclass
class TrustOptions:
    """Manifests: whether they may run programs."""

    allow_commands: bool = option(
        False,
        "read manifests whose recordings or features come from commands, URLs or pickles; 0: refuse them, "
        "because whoever wrote the manifest could run anything",
    )


@dataclass
class UnreadableOptions:
    """Unreadable cuts: how many are accepted."""

    max_unreadable: float = option(
        0.05,
        "share of the cuts that may turn out to be unreadable; above it, disks or networks are the likelier "
        "reason, and the program stops",
        at_least=0,
        at_most=1,
    )


@dataclass
class JoinOptions:
    """Cuts of several supervisions: whether they are utterances."""

    join_supervisions: bool = option(
        False,
        "a cut with several supervisions that do not overlap is one utterance with all their texts; 0: "
        "such cuts are dropped",
    )


@dataclass
class ReadingOptions(JoinOptions, UnreadableOptions, TrustOptions):
    """Data: where the cuts are and in which form they are read."""

    manifest_dir: str = option(
        "data/fbank", "folder of the cut manifests, <prefix>_cuts_<part>.jsonl.gz", path=PathKind.PLACE
    )
    shar_dir: str = option(
        "",
        "folder of Lhotse Shar; parts that have a subfolder of their name are read from there",
        path=PathKind.FOLDER,
    )
    on_the_fly_feats: bool = option(
        False, "compute features while loading, from audio; the same as --input-strategy OnTheFlyFeatures"
    )
    input_strategy: str = option(
        "PrecomputedFeatures",
        "how batches are made: stored features, features of audio, or audio itself",
        choices=INPUT_STRATEGIES,
    )
    features_on_device: bool = device_features_option(
        "needs --on-the-fly-feats 1: loader processes only read audio"
    )
    channel: str = channel_option()

    @property
    def strategy(self) -> str:
        """The input strategy, as ``on_the_fly_feats`` may override it."""
        if self.on_the_fly_feats and self.input_strategy == "PrecomputedFeatures":
            return "OnTheFlyFeatures"
        return self.input_strategy


@dataclass
class FeatureOptions:
    """Features: their kind and dimension."""

    sample_rate: int = option(
        16000, "samples per second of the audio; other rates are resampled", at_least=1000, at_most=1_000_000
    )
    num_mel_bins: int = option(80, "mel filters: the dimension of the features", at_least=7, at_most=512)
    feature_type: str = option(
        "fbank",
        "fbank: Kaldi's log-mel energies of samples in [-1, 1]; log-mel: logarithms of magnitudes of "
        "16-bit samples, 125 to 7600 Hz",
        choices=FEATURE_TYPES,
    )


@dataclass
class BatchOptions:
    """Batches: their size and who loads them."""

    max_duration: float = option(200.0, "seconds of audio in a batch, per process", above=0)
    bucketing_sampler: bool = option(
        True, "put cuts of similar duration into a batch; otherwise take them in random order"
    )
    num_workers: int = option(
        2, "loader processes; 0 loads in the main process", at_least=0, at_most=MAX_PROCESSES
    )


@dataclass
class TrainingBatchOptions:
    """Training batches: which cuts they draw, in which order."""

    use_mux: bool = option(False, "train on a mixture of corpora, see --mux-cuts")
    mux_cuts: str = option(
        "train",
        "the corpora to mix: MANIFEST:WEIGHT, separated by commas; manifests are looked for in "
        "--manifest-dir, too, and 'train' stands for the usual training cuts; the weight is how often "
        "a cut is drawn from there; left out: its number of cuts",
        only_with=OnlyWith("use_mux"),
    )
    mux_stop_early: bool = option(
        True,
        "an epoch of a mixture ends where the first of its corpora ends; 0: where the last one ends",
        only_with=OnlyWith("use_mux"),
    )
    num_buckets: int = option(
        30,
        "number of duration buckets of the training sampler",
        at_least=1,
        at_most=100_000,
        only_with=OnlyWith("bucketing_sampler"),
    )
    concatenate_cuts: bool = option(False, "join short training cuts so that there is less padding")
    duration_factor: float = option(
        1.0,
        "longest joined cut, relative to the longest cut of the batch",
        above=0,
        only_with=OnlyWith("concatenate_cuts"),
    )
    gap: float = option(
        1.0, "seconds of silence between joined cuts", at_least=0, only_with=OnlyWith("concatenate_cuts")
    )
    shuffle: bool = option(True, "shuffle the training cuts anew in each epoch")
    drop_last: bool = option(True, "leave out batches that are not full at the end of an epoch of training")
    return_cuts: bool = option(True, "give the cuts with each batch")
    min_duration: float = option(
        0.1, "training and validation cuts shorter than this many seconds are dropped", at_least=0
    )
    max_utt_duration: float = option(
        30.0, "training and validation cuts longer than this many seconds are dropped", above=0
    )
    empty_text: str = option(
        "drop",
        "training and validation cuts without words, such as noise: drop them, or keep them, "
        "so that a model learns to write nothing for them",
        choices=EMPTY_TEXTS,
    )


@dataclass
class AugmentationOptions:
    """Augmentation of training batches: level, SpecAugment, noise, silence, speed."""

    gain_prob: float = option(
        0.5,
        "probability that a training cut is made louder or quieter, so that quiet recordings are "
        "understood, too; 0 turns it off",
        at_least=0,
        at_most=1,
    )
    gain_low: float = option(-40.0, "the lowest of these gains in dB", at_least=-100, at_most=100)
    gain_high: float = option(10.0, "the highest of these gains in dB", at_least=-100, at_most=100)
    enable_spec_aug: bool = option(True, "SpecAugment on training batches")
    spec_aug: str = option(
        "lhotse",
        "kind of SpecAugment: lhotse's, whose masks together cover at most 15% of the time, as in "
        "icefall; or adaptive, whose masks are in proportion to the utterance, see the options below",
        choices=SPEC_AUGMENTS,
    )
    spec_aug_time_warp_factor: int = option(
        80,
        "time warping of --spec-aug lhotse; below 1 turns it off",
        only_with=OnlyWith("spec_aug", ("lhotse",)),
    )
    spec_aug_time_masks: int = option(
        10,
        "masks of frames, adaptive",
        at_least=0,
        at_most=1000,
        only_with=OnlyWith("spec_aug", ("adaptive",)),
    )
    spec_aug_time_mask_ratio: float = option(
        0.05,
        "longest mask of frames relative to the utterance, adaptive",
        at_least=0,
        at_most=1,
        only_with=OnlyWith("spec_aug", ("adaptive",)),
    )
    spec_aug_time_mask_max: int = option(
        0,
        "longest mask of frames in frames, adaptive; 0: no such limit",
        at_least=0,
        only_with=OnlyWith("spec_aug", ("adaptive",)),
    )
    spec_aug_freq_masks: int = option(
        2,
        "masks of mel filters, adaptive",
        at_least=0,
        at_most=1000,
        only_with=OnlyWith("spec_aug", ("adaptive",)),
    )
    spec_aug_freq_mask_max: int = option(
        27, "longest mask of mel filters, adaptive", at_least=1, only_with=OnlyWith("spec_aug", ("adaptive",))
    )
    spec_aug_fill: str = option(
        "zero",
        "what adaptive masks write: 0, or the mean of the utterance",
        choices=FILLS,
        only_with=OnlyWith("spec_aug", ("adaptive",)),
    )
    spec_aug_prob: float = option(
        1.0,
        "probability that an utterance gets adaptive masks",
        at_least=0,
        at_most=1,
        only_with=OnlyWith("spec_aug", ("adaptive",)),
    )
    tail_silence_prob: float = option(
        0.0,
        "probability that a training cut gets up to 0.4 s of digital silence at its end, "
        "as streaming decoders append it, too",
        at_least=0,
        at_most=1,
    )
    enable_musan: Optional[bool] = option(
        None,
        "mix noise into half of the training cuts, 10 to 20 dB below the speech; left out: if the noise "
        "manifest exists",
    )
    noise_manifest: str = option(
        "",
        "cuts of noise; left out: musan_cuts.jsonl.gz in --manifest-dir",
        only_with=OnlyWith("enable_musan", (True, None)),
    )
    speed_perturb: bool = option(
        False,
        "train on speeds 0.9 and 1.1 too; needs --on-the-fly-feats 1 (stored features get it in prepare.sh)",
    )


# A dataclass's fields come in the reverse order of its bases: those of reading first.
@dataclass
class TestDataOptions(BatchOptions, FeatureOptions, ReadingOptions):
    """Data: where the cuts are and how they become batches of a test set."""

    __test__ = False  # not a test, whatever pytest makes of the name


@dataclass
class DataOptions(AugmentationOptions, TrainingBatchOptions, BatchOptions, FeatureOptions, ReadingOptions):
    """Data: where the cuts are, how they become batches, how they are augmented."""
