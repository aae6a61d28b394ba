"""Augmentation of training batches: noise, joined cuts, SpecAugment."""

import random
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

from asr_core.data.corpus import manifest_places
from asr_core.data.options import DataOptions
from asr_core.data.spec_augment import AdaptiveSpecAugment
from asr_core.utils.errors import UserError

_NOISE = "musan_cuts.jsonl.gz"


class MixNoise:
    """Mixes noise into each cut of a batch with a probability, at a random signal-to-noise ratio, keeping its id.

    Args:
      noise: eager CutSet of noise.
      p: probability for each cut.
      snr: range of signal-to-noise ratios in dB.
    """

    def __init__(self, noise: Any, p: float = 0.5, snr: Tuple[float, float] = (10.0, 20.0)) -> None:
        self.noise = noise
        self.p = p
        self.snr = snr

    def __call__(self, cuts: Any, rng: random.Random) -> Any:
        from lhotse.dataset import CutMix

        return CutMix(self.noise, snr=self.snr, p=self.p, preserve_id=True, seed=rng)(cuts)


class JoinCuts:
    """Joins the short cuts of a batch, with silence between, up to a multiple of its longest cut."""

    def __init__(self, duration_factor: float, gap: float) -> None:
        self.duration_factor = duration_factor
        self.gap = gap

    def __call__(self, cuts: Any, rng: random.Random) -> Any:
        from lhotse.dataset import CutConcatenate

        return CutConcatenate(duration_factor=self.duration_factor, gap=self.gap)(cuts)


def noise_manifest(opts: DataOptions) -> Optional[Path]:
    """The manifest of noise to mix in, or None if there is none and none was asked for.

    Raises:
      UserError: noise was asked for and its manifest does not exist.
    """
    if opts.enable_musan is False:
        return None
    places = (
        [Path(opts.noise_manifest)]
        if opts.noise_manifest
        else manifest_places(opts.manifest_dir, _NOISE, opts.strategy)
    )
    for path in places:
        if path.is_file():
            return path
    if opts.enable_musan or opts.noise_manifest:
        where = " or ".join(map(str, places))
        raise UserError(
            f"no noise manifest {where}: run prepare.sh with noise (stages 2 and 4), or train with --enable-musan 0"
        )
    return None


def cut_transforms(opts: DataOptions) -> List[Callable]:
    """The transforms of training cuts that ``opts`` asks for."""
    transforms: List[Callable] = []
    if opts.concatenate_cuts:
        transforms.append(JoinCuts(opts.duration_factor, opts.gap))
    path = noise_manifest(opts)
    if path is not None:
        from lhotse import CutSet

        import asr_core.data.storage  # noqa: F401  (registers the reader of stored features)

        transforms.append(MixNoise(CutSet.from_jsonl_lazy(path).drop_supervisions().to_eager()))
    return transforms


def adaptive_spec_augment(opts: DataOptions, more_time_masks: float = 1.0) -> AdaptiveSpecAugment:
    """The ``--spec-aug adaptive`` that ``opts`` describe, with so many times the masks of frames."""
    return AdaptiveSpecAugment(
        time_masks=int(opts.spec_aug_time_masks * more_time_masks),
        time_mask_ratio=opts.spec_aug_time_mask_ratio,
        time_mask_max=opts.spec_aug_time_mask_max,
        freq_masks=opts.spec_aug_freq_masks,
        freq_mask_max=opts.spec_aug_freq_mask_max,
        fill=opts.spec_aug_fill,
        p=opts.spec_aug_prob,
    )


def input_transforms(opts: DataOptions) -> List[Callable]:
    """SpecAugment as icefall's recipes have it (Park et al. 2019 with more and shorter masks), or adaptive, if ``opts`` asks for it."""
    if not opts.enable_spec_aug:
        return []
    if opts.strategy == "AudioSamples":
        raise UserError(
            "--enable-spec-aug masks features; with --input-strategy AudioSamples give --enable-spec-aug 0"
        )
    if opts.spec_aug == "adaptive":
        return [adaptive_spec_augment(opts)]
    from lhotse.dataset import SpecAugment

    return [
        SpecAugment(
            time_warp_factor=opts.spec_aug_time_warp_factor,
            num_frame_masks=10,
            features_mask_size=27,
            num_feature_masks=2,
            frames_mask_size=100,
            max_frames_mask_fraction=0.15,
            p=0.9,
        )
    ]
