"""Options of reading and augmenting data."""

from dataclasses import dataclass
from typing import Optional

from asr_core.utils.errors import UserError
from asr_core.utils.options import option

INPUT_STRATEGIES = ("PrecomputedFeatures", "OnTheFlyFeatures", "AudioSamples")
FEATURE_TYPES = ("fbank", "log-mel")
SPEC_AUGMENTS = ("lhotse", "adaptive")
FILLS = ("zero", "mean")


@dataclass
class DataOptions:
    """Data: where the cuts are, how they become batches, how they are augmented."""

    manifest_dir: str = option("data/fbank", "folder of the cut manifests, <prefix>_cuts_<part>.jsonl.gz")
    shar_dir: str = option(
        "", "folder of Lhotse Shar: parts that have a folder of their name in it are read from there"
    )
    use_mux: bool = option(False, "train on a mixture of corpora, see --mux-cuts")
    mux_cuts: str = option(
        "train",
        "what to mix: MANIFEST:WEIGHT, separated by commas; manifests are looked for in --manifest-dir, too, and 'train' is what would "
        "be trained on otherwise; the weight is how often a cut is drawn from there; left out: its number of cuts",
    )
    mux_stop_early: bool = option(
        True, "an epoch of a mixture ends where the first of its corpora ends; 0: where the last one ends"
    )
    max_duration: float = option(200.0, "seconds of audio in a batch, per process")
    bucketing_sampler: bool = option(
        True, "put cuts of similar duration into a batch; otherwise take them in random order"
    )
    num_buckets: int = option(30, "number of duration buckets of the training sampler")
    concatenate_cuts: bool = option(False, "join short training cuts so that there is less padding")
    duration_factor: float = option(1.0, "longest joined cut, relative to the longest cut of the batch")
    gap: float = option(1.0, "seconds of silence between joined cuts")
    on_the_fly_feats: bool = option(
        False, "compute features while loading, from audio; the same as --input-strategy OnTheFlyFeatures"
    )
    input_strategy: str = option(
        "PrecomputedFeatures",
        "how batches are made: stored features, features of audio, or audio itself",
        choices=INPUT_STRATEGIES,
    )
    shuffle: bool = option(True, "shuffle the training cuts anew in each epoch")
    drop_last: bool = option(True, "leave out batches that are not full at the end of an epoch of training")
    return_cuts: bool = option(True, "give the cuts with each batch")
    num_workers: int = option(2, "loader processes; 0 loads in the main process")
    enable_spec_aug: bool = option(True, "SpecAugment on training batches")
    spec_aug: str = option(
        "lhotse",
        "kind of SpecAugment: lhotse's, whose masks cover at most 15% of the time together, as in icefall; adaptive: each mask is as "
        "long as a part of its utterance, and the options beside are its own",
        choices=SPEC_AUGMENTS,
    )
    spec_aug_time_warp_factor: int = option(80, "time warping of --spec-aug lhotse; below 1 turns it off")
    spec_aug_time_masks: int = option(10, "masks of frames, adaptive")
    spec_aug_time_mask_ratio: float = option(
        0.05, "longest mask of frames relative to the utterance, adaptive"
    )
    spec_aug_time_mask_max: int = option(0, "longest mask of frames in frames, adaptive; 0: no such limit")
    spec_aug_freq_masks: int = option(2, "masks of mel filters, adaptive")
    spec_aug_freq_mask_max: int = option(27, "longest mask of mel filters, adaptive")
    spec_aug_fill: str = option(
        "zero", "what adaptive masks write: 0, or the mean of the utterance", choices=FILLS
    )
    spec_aug_prob: float = option(1.0, "how often an utterance gets adaptive masks")
    tail_silence_prob: float = option(
        0.0,
        "how often a training cut gets up to 0.4 s of digital silence at its end, which streaming decoders append, too",
    )
    enable_musan: Optional[bool] = option(
        None,
        "mix noise into half of the training cuts, 10 to 20 dB below the speech; left out: if the noise manifest exists",
    )
    noise_manifest: str = option("", "cuts of noise; left out: musan_cuts.jsonl.gz in --manifest-dir")
    speed_perturb: bool = option(
        False,
        "train on speeds 0.9 and 1.1 too; needs --on-the-fly-feats 1 (stored features get it in prepare.sh)",
    )
    min_duration: float = option(
        0.1, "training and validation cuts shorter than this many seconds are dropped"
    )
    max_utt_duration: float = option(
        30.0, "training and validation cuts longer than this many seconds are dropped"
    )
    sample_rate: int = option(16000, "samples per second that the model hears; other rates are resampled")
    num_mel_bins: int = option(80, "mel filters: the dimension of the features")
    feature_type: str = option(
        "fbank",
        "fbank: Kaldi's log-mel energies of samples in [-1, 1]; log-mel: logarithms of magnitudes of 16-bit samples, 125 to 7600 Hz",
        choices=FEATURE_TYPES,
    )

    def validate(self) -> None:
        """Refuse values that make no sense.

        Raises:
          UserError: naming the option.
        """
        for name, known in (
            ("feature_type", FEATURE_TYPES),
            ("spec_aug", SPEC_AUGMENTS),
            ("spec_aug_fill", FILLS),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"--{name.replace('_', '-')} is one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        least_values = {"num_workers": 0, "num_buckets": 1, "sample_rate": 1000, "num_mel_bins": 1}
        least_values.update(
            spec_aug_time_masks=0, spec_aug_time_mask_max=0, spec_aug_freq_masks=0, spec_aug_freq_mask_max=1
        )
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}"
                )
        if not self.max_duration > 0:
            raise UserError(f"--max-duration must be above 0, got {self.max_duration:g}")
        for name in ("tail_silence_prob", "spec_aug_prob", "spec_aug_time_mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"--{name.replace('_', '-')} must be from 0 to 1, got {getattr(self, name):g}"
                )

    @property
    def strategy(self) -> str:
        """The input strategy after ``on_the_fly_feats`` had its say."""
        if self.on_the_fly_feats and self.input_strategy == "PrecomputedFeatures":
            return "OnTheFlyFeatures"
        return self.input_strategy
