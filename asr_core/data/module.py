"""Loaders of training, validation and test batches."""

import logging
import os
import signal
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from torch.utils.data import DataLoader

from asr_core.data.augment import cut_transforms, input_transforms
from asr_core.data.dataset import MISSING_PACKAGE, OTHER_FEATURES, SpeechDataset, batch_seed
from asr_core.data.filter import CutFilter, DropReport
from asr_core.data.mux import open_mux
from asr_core.data.options import DataOptions
from asr_core.data.sampler import BucketSampler, duration_bins
from asr_core.data.stream import ChainStream, CutStream, open_stream
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.runtime import die_with_parent

_PLAIN_BUCKETS = 10  # of validation and test sets


class Survey(NamedTuple):
    """What an epoch of cuts holds: usable utterances, their seconds, their tokens."""

    utterances: int
    seconds: float
    tokens: int


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
      subsampling_factor: feature frames per frame of the encoder that the cuts are for.

    Raises:
      UserError: options that make no sense.

    Attributes:
      dropped: cuts that were left out: on rank 0 all unusable ones and those of its batches that could not be read, on others the latter.
    """

    def __init__(
        self,
        opts: DataOptions,
        seed: int = 42,
        tokenizer: Optional[Tokenizer] = None,
        rank: int = 0,
        world_size: int = 1,
        subsampling_factor: int = 4,
    ) -> None:
        opts.validate()
        self.opts = opts
        self.seed = seed
        self.tokenizer = tokenizer
        self.rank = rank
        self.world_size = world_size
        self.dropped = DropReport()
        report = self.dropped if rank == 0 else DropReport()  # all ranks drop the same: one tells it
        self._filter = CutFilter(opts, tokenizer, report, subsampling_factor)
        self._streams: List[Tuple[Any, bool, bool, CutStream]] = []
        self._bins: List[Tuple[CutStream, int, List[float]]] = []
        self._train_transforms: Optional[List[Any]] = None

    def train_dataloader(
        self, cuts: Any, epoch: int, skip_batches: int = 0, bucket_run: int = 0
    ) -> "BatchLoader":
        """This rank's batches of one epoch of training.

        Args:
          cuts: training cuts; unusable ones are dropped and counted in ``dropped``.
          epoch: number of the epoch; each has its own order and augmentation.
          skip_batches: how many batches at the start of the epoch were already used, by all ranks together; they are not loaded.
          bucket_run: so many batches in a row have similar durations, for they are worked on at the same time; 0: ``world_size``. Another
            number gives another order.
        """
        opts = self.opts
        if self._train_transforms is None:
            self._train_transforms = cut_transforms(opts)
        dataset = SpeechDataset(
            opts,
            (self.seed, epoch, 0),
            self._train_transforms,
            input_transforms(opts),
            opts.return_cuts,
            opts.tail_silence_prob,
        )
        stream = self._stream(cuts, usable=True, train=True)
        bins = self._bins_of(stream, opts.num_buckets)
        order = epoch if opts.shuffle else None
        bucket_run = bucket_run or self.world_size
        sampler = self._sampler(
            stream,
            bins,
            order,
            drop_last=opts.drop_last,
            bucket_run=bucket_run,
            first=skip_batches + self.rank,
        )
        return BatchLoader(self, dataset, sampler, f"epoch {epoch}", batch_seed(self.seed, epoch, 0))

    def valid_dataloader(self, cuts: Any) -> "BatchLoader":
        """Batches for validation: unusable cuts dropped, no augmentation, the same order each time."""
        return self._plain_loader(cuts, True, "validation", self.opts.return_cuts)

    def test_dataloader(self, cuts: Any) -> "BatchLoader":
        """Batches for decoding: every cut that can be read, with its cut in the batch."""
        return self._plain_loader(cuts, False, "test", True)

    def survey(self, cuts: Any, train: bool = True) -> "Survey":
        """Count what is usable in an epoch of ``cuts``; what is not is noted in ``dropped``, letters without tokens in ``unknown``.

        Args:
          cuts: training or validation cuts.
          train: with other corpora and speeds mixed in, as the options say.
        """
        stream = self._stream(cuts, True, train)
        return Survey(*stream.survey(), stream.tokens)

    @property
    def unknown(self) -> Dict[str, int]:
        """Characters of the cuts seen so far that the tokenizer cannot spell, and in how many cuts each was met."""
        return dict(self._filter.unknown)

    def _plain_loader(self, cuts: Any, usable: bool, what: str, return_cuts: bool) -> "BatchLoader":
        dataset = SpeechDataset(self.opts, (self.seed,), return_cuts=return_cuts)
        stream = self._stream(cuts, usable)
        bins = self._bins_of(stream, _PLAIN_BUCKETS)
        return BatchLoader(self, dataset, self._sampler(stream, bins, None, first=self.rank), what, self.seed)

    def _stream(self, cuts: Any, usable: bool, train: bool = False) -> CutStream:
        """The stream of ``cuts``, opened once, so that what its first pass found out is not looked for again.

        Args:
          usable: leave out cuts that cannot be trained on.
          train: mix other corpora and speeds in, as the options say.
        """
        for known, *key, stream in self._streams:
            if known is cuts and key == [usable, train]:
                return stream
        stream = open_stream(cuts, self._filter if usable else None, self.seed)
        if train and self.opts.use_mux:
            stream = open_mux(self.opts, stream, self._filter, self.seed)
        if train and self.opts.speed_perturb:
            if self.opts.strategy == "PrecomputedFeatures":
                raise UserError(
                    "--speed-perturb 1 changes audio: give --on-the-fly-feats 1, or let prepare.sh store all speeds"
                )
            stream = ChainStream([stream, stream.with_speed(0.9), stream.with_speed(1.1)])
        self._streams.append((cuts, usable, train, stream))
        return stream

    def _bins_of(self, stream: CutStream, buckets: int) -> List[float]:
        """Boundaries of duration buckets, computed once for each stream."""
        if not self.opts.bucketing_sampler:
            return []
        for known, number, bins in self._bins:
            if known is stream and number == buckets:
                return bins
        bins = duration_bins(stream, buckets)
        self._bins.append((stream, buckets, bins))
        return bins

    def _sampler(
        self, stream: CutStream, bins: List[float], epoch: Optional[int], **kwargs: Any
    ) -> BucketSampler:
        return BucketSampler(
            stream, epoch, self.opts.max_duration, bins, self.seed, step=self.world_size, **kwargs
        )


class BatchLoader:
    """Iterates over batches (see :class:`~asr_core.data.dataset.SpeechDataset`); drops and counts what cannot be read.

    A batch of which nothing could be read is left out, so ``batch["batch_idx"]`` says where in the epoch a batch stands.
    """

    def __init__(
        self, module: AsrDataModule, dataset: SpeechDataset, sampler: BucketSampler, what: str, seed: int
    ) -> None:
        self.module = module
        self.dataset = dataset
        self.sampler = sampler
        self.what = what
        self.seed = seed

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        workers = self.module.opts.num_workers
        loader = DataLoader(
            self.dataset,
            sampler=self.sampler,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_start_worker if workers else None,
            generator=torch.Generator().manual_seed(
                self.seed
            ),  # or the loader draws from the caller's random state
            multiprocessing_context="fork" if workers and hasattr(os, "fork") else None,
        )
        empty = True
        for batch in loader:
            for cut_id, reason in batch["dropped"]:
                if reason.startswith((MISSING_PACKAGE, OTHER_FEATURES)):
                    raise UserError(f"the features of {cut_id} are {reason}")
                self.module.dropped.add(cut_id, reason)
            if len(batch["supervisions"]["text"]):
                empty = False
                yield batch
        self.module.dropped.log(self.what)
        if empty and self.sampler.first == 0:  # where there are few batches, higher ranks get none
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
    die_with_parent(signal.SIGKILL)
    torch.set_num_threads(1)
    for signum in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a whole group gets them; the main process decides when loading ends
        signal.signal(signum, signal.SIG_IGN)
