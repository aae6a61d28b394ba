"""Loaders of training, validation and test batches."""

import logging
import os
import signal
import warnings
from itertools import islice
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from torch.utils.data import DataLoader, Sampler

from asr_core.data.augment import cut_transforms, input_transforms
from asr_core.data.dataset import SpeechDataset, batch_seed
from asr_core.data.filter import CutFilter, DropReport
from asr_core.data.options import DataOptions
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError

_CUTS_FOR_BUCKETS = 10000


class AsrDataModule:
    """Makes the loaders of a recipe.

    An epoch is one sequence of batches, of which rank r takes those at positions r, r + world_size, ... What is in a batch depends on
    (seed, epoch, position) alone: not on the number of loader processes, nor on where a resumed run started. The random states of
    the calling process are left untouched.

    Args:
      opts: data options.
      seed: seed of shuffling and augmentation.
      tokenizer: if given, training and validation cuts that it cannot spell, or that have too many tokens, are dropped.
      rank, world_size: this process among those that share an epoch.
    """

    def __init__(
        self, opts: DataOptions, seed: int = 42, tokenizer: Optional[Tokenizer] = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.opts = opts
        self.seed = seed
        self.tokenizer = tokenizer
        self.rank = rank
        self.world_size = world_size
        self.dropped = DropReport()
        self._bins: List[Tuple[Any, List[float]]] = []
        self._train_transforms: Optional[List[Any]] = None

    def train_dataloader(self, cuts: Any, epoch: int, skip_batches: int = 0, alike: int = 0) -> "BatchLoader":
        """This rank's batches of one epoch of training.

        Args:
          cuts: training cuts; unusable ones are dropped and counted in ``dropped``.
          epoch: number of the epoch; each has its own order and augmentation.
          skip_batches: how many batches at the start of the epoch were already used, by all ranks together; they are not loaded.
          alike: so many batches in a row have similar durations, for they are worked on at the same time; 0: ``world_size``. Another
            number gives another order.
        """
        if self.opts.speed_perturb:
            cuts = self._with_other_speeds(cuts)
        if self._train_transforms is None:
            self._train_transforms = cut_transforms(self.opts)
        usable = cuts.filter(CutFilter(self.opts, self.tokenizer, self.dropped))
        dataset = SpeechDataset(
            self.opts,
            (self.seed, epoch, 0),
            self._train_transforms,
            input_transforms(self.opts),
            self.opts.return_cuts,
            self.opts.tail_silence_prob,
        )
        opts = self.opts
        sampler = self._sampler(usable, cuts, opts.shuffle, opts.drop_last, opts.num_buckets, alike or self.world_size)
        sampler.set_epoch(epoch)
        return BatchLoader(self, dataset, sampler, f"epoch {epoch}", skip_batches, batch_seed(self.seed, epoch, 0))

    def valid_dataloader(self, cuts: Any) -> "BatchLoader":
        """Batches for validation: unusable cuts dropped, no augmentation, the same order each time."""
        usable = cuts.filter(CutFilter(self.opts, self.tokenizer, self.dropped))
        return self._plain_loader(usable, cuts, "validation", self.opts.return_cuts)

    def test_dataloader(self, cuts: Any) -> "BatchLoader":
        """Batches for decoding: every cut that can be read, with its cut in the batch."""
        return self._plain_loader(cuts, cuts, "test", True)

    def _plain_loader(self, cuts: Any, key: Any, what: str, return_cuts: bool) -> "BatchLoader":
        dataset = SpeechDataset(self.opts, (self.seed,), return_cuts=return_cuts)
        sampler = self._sampler(cuts, key, shuffle=False, drop_last=False, buckets=10)
        return BatchLoader(self, dataset, sampler, what, 0, self.seed)

    def _with_other_speeds(self, cuts: Any) -> Any:
        if self.opts.strategy == "PrecomputedFeatures":
            raise UserError("--speed-perturb 1 changes audio: give --on-the-fly-feats 1, or let prepare.sh store features of all speeds")
        return cuts + cuts.perturb_speed(0.9) + cuts.perturb_speed(1.1)

    def _sampler(self, cuts: Any, key: Any, shuffle: bool, drop_last: bool, buckets: int, alike: int = 1) -> Any:
        from lhotse.dataset import DynamicBucketingSampler, SimpleCutSampler

        common: Dict[str, Any] = dict(
            max_duration=self.opts.max_duration,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.seed,
            rank=0,
            world_size=alike,
        )
        bins = self._duration_bins(cuts, key, buckets) if self.opts.bucketing_sampler else []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about cut sets held in memory
            if not bins:
                return SimpleCutSampler(cuts, **common)
            return DynamicBucketingSampler(cuts, duration_bins=bins, buffer_size=(len(bins) + 1) * 5000, **common)

    def _duration_bins(self, cuts: Any, key: Any, buckets: int) -> List[float]:
        """Boundaries of duration buckets with equal amounts of audio; computed once for each cut set."""
        from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets

        for known, bins in self._bins:
            if known is key:
                return bins
        sample = list(islice(cuts, _CUTS_FOR_BUCKETS))
        buckets = min(buckets, len(sample))
        bins = sorted(set(estimate_duration_buckets(sample, buckets))) if buckets > 1 else []
        self._bins.append((key, bins))
        return bins


class _IndexedSampler(Sampler):
    """Pairs batches of a lhotse sampler with their positions in the epoch; gives those at ``first``, ``first + step``, ..."""

    def __init__(self, sampler: Any, first: int, step: int) -> None:
        self.sampler = sampler
        self.first = first
        self.step = step

    def __iter__(self) -> Iterator[Tuple[int, Any]]:
        alike = self.sampler.world_size
        batches = iter(self.sampler)  # a bucketing sampler now fills ``world_size`` batches in a row from one bucket ...
        self.sampler.world_size = 1  # ... and we see each of them, so that the last ones are not lost or repeated to come out even
        try:
            yield from islice(enumerate(batches), self.first, None, self.step)
        finally:
            self.sampler.world_size = alike


class BatchLoader:
    """Iterates over batches (see :class:`~asr_core.data.dataset.SpeechDataset`); drops and counts what cannot be read.

    A batch of which nothing could be read is left out, so ``batch["batch_idx"]`` says where in the epoch a batch stands.
    """

    def __init__(self, module: AsrDataModule, dataset: SpeechDataset, sampler: Any, what: str, first: int, seed: int) -> None:
        self.module = module
        self.dataset = dataset
        self.sampler = sampler
        self.what = what
        self.first = first
        self.seed = seed

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        workers = self.module.opts.num_workers
        loader = DataLoader(
            self.dataset,
            sampler=_IndexedSampler(self.sampler, self.first + self.module.rank, self.module.world_size),
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_start_worker if workers else None,
            generator=torch.Generator().manual_seed(self.seed),  # or the loader draws from the caller's random state
            multiprocessing_context="fork" if workers and hasattr(os, "fork") else None,
        )
        empty = True
        for batch in loader:
            for cut_id, reason in batch["dropped"]:
                self.module.dropped.add(cut_id, reason)
            if len(batch["supervisions"]["text"]):
                empty = False
                yield batch
        self.module.dropped.log(self.what)
        if empty and self.first == 0 and self.module.rank == 0:  # where there are few batches, higher ranks get none
            self._explain_empty()

    def _explain_empty(self) -> None:
        message = f"{self.what}: no batch could be made; dropped: {self.module.dropped}"
        if self.sampler.drop_last:
            message += "; a smaller --max-duration or --num-buckets, or --drop-last 0, may help where there is little data"
        if self.what == "test":
            logging.warning(message)
        else:
            raise UserError(message)


def _start_worker(worker_id: int) -> None:
    torch.set_num_threads(1)
    for signum in (signal.SIGINT, signal.SIGTERM):  # a whole group gets them; the main process decides when loading ends
        signal.signal(signum, signal.SIG_IGN)
