"""Loaders of training, validation and test batches."""

import os
import signal
from collections import Counter
from dataclasses import dataclass
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import torch
from lhotse import CutSet
from torch.utils.data import DataLoader

from asr_core.data.augment import cut_transforms, input_transforms
from asr_core.data.batch import Batch
from asr_core.data.cut_rules import FrameNeeds
from asr_core.data.dataset import CutTransform, SpeechDataset, batch_seed
from asr_core.data.filter import CutFilter, DropReport
from asr_core.data.loader_processes import in_processes
from asr_core.data.mux import open_mux
from asr_core.data.options import FIRST, DataOptions
from asr_core.data.read_errors import ReadMonitor, UnusableFeatures, UnusableSet
from asr_core.data.sampler import BucketSampler, duration_bins
from asr_core.data.stream import ChainStream, CutStream, open_stream
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.options import check_values
from asr_core.utils.runtime import die_with_parent

_TRAINING, _VALIDATION, _TEST = "training", "validation", "test"  # purposes of cuts
_PLAIN_BUCKETS = 10  # of validation and test sets, which are small


class Survey(NamedTuple):
    """The size of an epoch: usable utterances, their seconds, their tokens."""

    utterances: int
    seconds: float
    tokens: int


class _OpenStream(NamedTuple):
    """An open stream and its purpose."""

    cuts: CutSet
    purpose: str
    stream: CutStream
    dropped: DropReport


class AsrDataModule:
    """The batch loaders of a recipe.

    An epoch is one sequence of batches, of which rank r takes those at positions r, r + world_size,
    ... The content of a batch depends on (seed, epoch, position) alone: neither on the number of
    loader processes nor on where a resumed run started. The random states of the calling process
    are left untouched.

    Args:
      opts: data options.
      seed: seed of shuffling and augmentation.
      tokenizer: if given, training and validation cuts that it cannot spell, or that have too many
        tokens, are dropped.
      rank, world_size: this process among those that share an epoch.
      subsampling_factor: feature frames per frame of the encoder that the cuts are for.
      needs: what the losses ask of the encoder frames.

    Raises:
      UserError: an option is out of its bounds, or chooses a channel of stored features.

    Attributes:
      dropped: cuts that were left out: on every rank those of its batches that could not be read,
        on rank 0 also all unusable ones.
    """

    def __init__(
        self,
        opts: DataOptions,
        seed: int = 42,
        tokenizer: Optional[Tokenizer] = None,
        rank: int = 0,
        world_size: int = 1,
        subsampling_factor: int = 4,
        needs: FrameNeeds = FrameNeeds(),
    ) -> None:
        check_values(opts)
        if opts.channel != FIRST and opts.strategy == "PrecomputedFeatures":
            raise UserError(
                f"--channel {opts.channel} chooses among channels of audio: give it to what stored the "
                "features (prepare.sh, compute_fbank), or give --on-the-fly-feats 1, too"
            )
        if opts.features_on_device and opts.strategy != "OnTheFlyFeatures":
            raise UserError(
                "--features-on-device 1 computes features of audio: give --on-the-fly-feats 1, too"
            )
        self.opts = opts
        self.seed = seed
        self.tokenizer = tokenizer
        self.rank = rank
        self.world_size = world_size
        self.dropped = DropReport()
        self._frames = (subsampling_factor, needs)
        self._reports: Dict[str, DropReport] = {}
        self._unknown: "Counter[str]" = Counter()
        self._streams: List[_OpenStream] = []
        self._bins: List[Tuple[CutStream, int, List[float]]] = []
        self._train_transforms: Optional[List[CutTransform]] = None

    def train_dataloader(
        self, cuts: CutSet, epoch: int, skip_batches: int = 0, bucket_run: int = 0
    ) -> "BatchLoader":
        """Return this rank's batches of one epoch of training.

        Args:
          cuts: training cuts; unusable ones are dropped and counted in ``dropped``.
          epoch: number of the epoch; each has its own order and augmentation.
          skip_batches: number of batches at the start of the epoch that were already used, by all
            ranks together; they are not loaded.
          bucket_run: number of consecutive batches of similar durations, which the ranks work on at
            the same time; 0: ``world_size``. Another number gives another order.
        """
        opts = self.opts
        if self._train_transforms is None:
            self._train_transforms = cut_transforms(opts)
        dataset = SpeechDataset(
            opts,
            (self.seed, epoch, 0),
            cut_transforms=self._train_transforms,
            input_transforms=input_transforms(opts),
            return_cuts=opts.return_cuts,
            tail_silence_prob=opts.tail_silence_prob,
        )
        opened = self._open(cuts, _TRAINING)
        bins = self._bins_of(opened.stream, opts.num_buckets)
        sampler = self._sampler(
            opened.stream,
            bins,
            epoch if opts.shuffle else None,
            drop_last=opts.drop_last,
            bucket_run=bucket_run or self.world_size,
            first=skip_batches + self.rank,
        )
        seed = batch_seed(self.seed, epoch, 0)
        return BatchLoader(self, dataset, sampler, f"epoch {epoch}", seed, opened.dropped)

    def valid_dataloader(self, cuts: CutSet) -> "BatchLoader":
        """Return batches for validation: usable cuts, not augmented, always in the same order."""
        return self._plain_loader(cuts, _VALIDATION, return_cuts=self.opts.return_cuts)

    def test_dataloader(self, cuts: CutSet) -> "BatchLoader":
        """Return batches for decoding, with their cuts: all that make sense and can be read."""
        return self._plain_loader(cuts, _TEST, return_cuts=True)

    def survey(self, cuts: CutSet, train: bool = True) -> "Survey":
        """Count the usable cuts in an epoch of ``cuts``.

        Unusable ones are noted in ``dropped``, characters without tokens in ``unknown``.

        Args:
          cuts: training or validation cuts.
          train: with other corpora and speeds mixed in, as the options say.
        """
        stream = self._open(cuts, _TRAINING if train else _VALIDATION).stream
        utterances, seconds = stream.survey()
        return Survey(utterances, seconds, stream.tokens)

    def survey_test(self, cuts: CutSet) -> "Survey":
        """Count the cuts of a test set that make sense, and their seconds."""
        stream = self._open(cuts, _TEST).stream
        return Survey(*stream.survey(), 0)

    @property
    def unknown(self) -> Dict[str, int]:
        """Characters that the tokenizer cannot spell, and the number of cuts that have each."""
        return dict(self._unknown)

    def _plain_loader(self, cuts: CutSet, purpose: str, *, return_cuts: bool) -> "BatchLoader":
        dataset = SpeechDataset(self.opts, (self.seed,), return_cuts=return_cuts)
        opened = self._open(cuts, purpose)
        bins = self._bins_of(opened.stream, _PLAIN_BUCKETS)
        sampler = self._sampler(opened.stream, bins, None, first=self.rank)
        return BatchLoader(self, dataset, sampler, purpose, self.seed, opened.dropped)

    def _open(self, cuts: CutSet, purpose: str) -> _OpenStream:
        """Open the stream of ``cuts``, once, so that it keeps what its first pass found out.

        Cuts that the purpose has no use for are left out. Other corpora and speeds are mixed into
        training cuts, as the options say.
        """
        for known in self._streams:
            if known.cuts is cuts and known.purpose == purpose:
                return known
        dropped = self._reports.get(purpose) or DropReport(self.dropped)
        if purpose != _TEST:  # each test set has its own, and other sets count a cut once
            self._reports[purpose] = dropped
        keep = CutFilter(
            self.opts,
            None if purpose == _TEST else self.tokenizer,
            dropped if self.rank == 0 else DropReport(),  # all ranks drop the same: one reports it
            *self._frames,
            training=purpose != _TEST,
            unknown=self._unknown,
        )
        stream = open_stream(cuts, keep, self.seed)
        if purpose == _TRAINING and self.opts.use_mux:
            stream = open_mux(self.opts, stream, keep, self.seed)
        if purpose == _TRAINING and self.opts.speed_perturb:
            if self.opts.strategy == "PrecomputedFeatures":
                raise UserError(
                    "--speed-perturb 1 changes audio: "
                    "give --on-the-fly-feats 1, or let prepare.sh store all speeds"
                )
            stream = ChainStream([stream, stream.with_speed(0.9), stream.with_speed(1.1)])
        self._streams.append(_OpenStream(cuts, purpose, stream, dropped))
        return self._streams[-1]

    def _bins_of(self, stream: CutStream, buckets: int) -> List[float]:
        """Return boundaries of duration buckets, computed once for each stream."""
        if not self.opts.bucketing_sampler:
            return []
        for known, number, bins in self._bins:
            if known is stream and number == buckets:
                return bins
        bins = duration_bins(stream, buckets)
        self._bins.append((stream, buckets, bins))
        return bins

    def _sampler(
        self,
        stream: CutStream,
        bins: List[float],
        epoch: Optional[int],
        *,
        first: int,
        drop_last: bool = False,
        bucket_run: int = 1,
    ) -> BucketSampler:
        return BucketSampler(
            stream,
            epoch,
            self.opts.max_duration,
            bins,
            seed=self.seed,
            drop_last=drop_last,
            bucket_run=bucket_run,
            first=first,
            step=self.world_size,
        )


@dataclass(eq=False)
class BatchLoader:
    """Iterable over batches that drops and counts the cuts that cannot be read.

    A batch of which nothing could be read is left out, so ``batch["batch_idx"]`` says where in the
    epoch a batch stands.

    Attributes:
      module: whose options hold.
      dataset: loads the cuts of a batch.
      sampler: chooses them.
      name: name of the part or epoch, for messages.
      seed: seed of the workers.
      dropped: notes the dropped cuts of this purpose.
    """

    module: AsrDataModule
    dataset: SpeechDataset
    sampler: BucketSampler
    name: str
    seed: int
    dropped: DropReport

    def __iter__(self) -> Iterator[Batch]:
        workers = self.module.opts.num_workers
        loader = DataLoader(
            self.dataset,
            sampler=self.sampler,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=_start_worker if workers else None,
            pin_memory=torch.cuda.is_initialized(),  # where this process works on a GPU
            # Without its own generator, the loader draws from the caller's random state.
            generator=torch.Generator().manual_seed(self.seed),
            multiprocessing_context="fork" if workers and hasattr(os, "fork") else None,
        )
        empty, number = True, -(-self.sampler.stream.number // self.sampler.step)
        monitor = ReadMonitor(self.module.opts.max_unreadable, number, self.name)
        for batch in in_processes(loader, "lower --num-workers or --max-duration"):
            for cut_id, error in batch["dropped"]:
                if isinstance(error, UnusableFeatures):
                    raise UserError(f"the features of {cut_id} are {error}") from error
                self.dropped.add(cut_id, str(error))
            num_read = len(batch["supervisions"]["text"])
            monitor.record(num_read, batch["dropped"])
            if num_read:
                empty = False
                yield batch
        self.dropped.log(self.name)
        if empty and self.sampler.first == 0:  # where there are few batches, higher ranks get none
            self._explain_empty()

    def _explain_empty(self) -> None:
        message = f"{self.name}: no batch could be made; dropped: {self.dropped}"
        if self.sampler.drop_last:
            message += "; with little data try a smaller --max-duration or --num-buckets, or --drop-last 0"
        raise UnusableSet(message)


def _start_worker(worker_id: int) -> None:
    die_with_parent(signal.SIGKILL)
    torch.set_num_threads(1)
    # The terminal sends these to the whole group; the main process decides when loading ends.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
