"""Augmentation of training batches: noise, joined cuts, SpecAugment."""

import random
from pathlib import Path
from typing import List, Optional, Tuple

from lhotse import CutSet
from lhotse.dataset import CutConcatenate, CutMix, SpecAugment

from asr_core.data.dataset import CutTransform, InputTransform
from asr_core.data.manifest import iterate_cuts
from asr_core.data.open_cuts import manifest_places
from asr_core.data.options import DataOptions
from asr_core.data.spec_augment import AdaptiveSpecAugment
from asr_core.utils.errors import UserError

_NOISE = "musan_cuts.jsonl.gz"


class MixNoise:
    """Transform that mixes noise into some cuts, at a random signal-to-noise ratio.

    The cuts keep their ids.

    Args:
      noise: eager CutSet of noise.
      p: probability for each cut.
      snr: range of signal-to-noise ratios in dB.
    """

    def __init__(self, noise: CutSet, p: float = 0.5, snr: Tuple[float, float] = (10.0, 20.0)) -> None:
        self.noise = noise
        self.p = p
        self.snr = snr

    def __call__(self, cuts: CutSet, rng: random.Random) -> CutSet:
        return CutMix(self.noise, snr=self.snr, p=self.p, preserve_id=True, seed=rng)(cuts)


class JoinCuts:
    """Transform that joins short cuts, with silence between, up to a multiple of the longest."""

    def __init__(self, duration_factor: float, gap: float) -> None:
        self.duration_factor = duration_factor
        self.gap = gap

    def __call__(self, cuts: CutSet, rng: random.Random) -> CutSet:
        return CutConcatenate(duration_factor=self.duration_factor, gap=self.gap)(cuts)


class AtOneRate:
    """Transform that resamples cuts, where others join or mix them: lhotse wants equal rates."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate

    def __call__(self, cuts: CutSet, rng: random.Random) -> CutSet:
        rate = self.sample_rate
        return CutSet.from_cuts(c if c.sampling_rate == rate else c.resample(rate) for c in cuts)


def noise_manifest(opts: DataOptions) -> Optional[Path]:
    """Return the manifest of noise to mix in; None if it is missing and was not asked for.

    Raises:
      UserError: noise was asked for and its manifest does not exist.
    """
    if opts.enable_musan is False:
        return None
    places = [Path(opts.noise_manifest)]
    if not opts.noise_manifest:
        places = manifest_places(opts.manifest_dir, _NOISE, opts.strategy)
    for path in places:
        if path.is_file():
            return path
    if opts.enable_musan or opts.noise_manifest:
        raise UserError(
            f"no noise manifest {' or '.join(map(str, places))}: run prepare.sh with noise "
            "(stages 2 and 4), or train with --enable-musan 0"
        )
    return None


def cut_transforms(opts: DataOptions) -> List[CutTransform]:
    """Return the transforms of training cuts that ``opts`` asks for."""
    transforms: List[CutTransform] = []
    if opts.concatenate_cuts:
        transforms.append(JoinCuts(opts.duration_factor, opts.gap))
    path = noise_manifest(opts)
    if path is not None:
        noise = CutSet.from_cuts(iterate_cuts(path, opts.allow_commands))
        if opts.strategy == "OnTheFlyFeatures":
            noise = AtOneRate(opts.sample_rate)(noise, random.Random())
        transforms.append(MixNoise(noise.drop_supervisions().to_eager()))
    if transforms and opts.strategy == "OnTheFlyFeatures":
        transforms.insert(0, AtOneRate(opts.sample_rate))
    return transforms


def adaptive_spec_augment(opts: DataOptions, more_time_masks: float = 1.0) -> AdaptiveSpecAugment:
    """Return ``--spec-aug adaptive``, with ``more_time_masks`` times the time masks of ``opts``."""
    return AdaptiveSpecAugment(
        time_masks=int(opts.spec_aug_time_masks * more_time_masks),
        time_mask_ratio=opts.spec_aug_time_mask_ratio,
        time_mask_max=opts.spec_aug_time_mask_max,
        freq_masks=opts.spec_aug_freq_masks,
        freq_mask_max=opts.spec_aug_freq_mask_max,
        fill=opts.spec_aug_fill,
        p=opts.spec_aug_prob,
    )


def lhotse_spec_augment(*, time_warp_factor: int, more_time_masks: float = 1.0) -> SpecAugment:
    """Return lhotse's SpecAugment with the masks of icefall's recipes.

    Compared with Park et al. 2019 (section 2), they are more and shorter; together
    they cover at most 15 % of the time.

    Args:
      time_warp_factor: largest shift of a frame by time warping; below 1 turns it off.
      more_time_masks: factor of the number and total length of the masks of frames.
    """
    return SpecAugment(
        time_warp_factor=time_warp_factor,
        num_frame_masks=int(10 * more_time_masks),
        features_mask_size=27,
        num_feature_masks=2,
        frames_mask_size=100,
        max_frames_mask_fraction=0.15 * more_time_masks,
        p=0.9,  # of each transform, for each utterance
    )


def input_transforms(opts: DataOptions) -> List[InputTransform]:
    """Return the SpecAugment that ``opts`` asks for.

    Raises:
      UserError: SpecAugment is to mask audio.
    """
    if not opts.enable_spec_aug:
        return []
    if opts.strategy == "AudioSamples":
        raise UserError(
            "--enable-spec-aug masks features; with --input-strategy AudioSamples give --enable-spec-aug 0"
        )
    if opts.spec_aug == "adaptive":
        return [adaptive_spec_augment(opts)]
    return [lhotse_spec_augment(time_warp_factor=opts.spec_aug_time_warp_factor)]
