"""Training of neural language models, by the same loop as that of recognizers."""

import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, Iterator, List, MutableMapping, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from asr_core.lm.archive import LmArchive, batches_of
from asr_core.lm.neural import RnnLm, TransformerLm, pad_tokens
from asr_core.lm.options import LmTrainOptions, RnnOptions, TransformerOptions
from asr_core.text.pieces import KEY, difference
from asr_core.training.batch_loss import BatchLoss, BatchSize
from asr_core.training.distributed.agreement import content_fact
from asr_core.training.optim.stepper import GradientScaling
from asr_core.training.options import LoopOptions
from asr_core.training.schedule import LRScheduler, Warmup
from asr_core.training.task import Batch, Task
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

_LARGEST_EXPONENT = 700.0  # exp() overflows above about 709


@dataclass(eq=False)
class LmData:
    """The batches of language-model training.

    An epoch is one sequence of batches of sentences of similar length, of which rank r takes those
    at positions r, r + world_size, ... A batch holds ``inputs`` and ``targets`` (N, L) int64 and
    ``lens`` (N,) as :func:`asr_core.lm.neural.pad_tokens` makes them, ``sentences`` (N,), their
    numbers in the archive, and ``batch_idx``, its position in the epoch.

    Attributes:
      train, valid: the token data.
      opts: batch size and longest sentence.
      seed: seed of the order of batches.
      rank, world_size: this process among those that share an epoch.
      num_dropped: always 0; :meth:`report` counts the sentences that are too long before training.
      valid_sets: the one validation set, which has no name.
    """

    num_dropped: ClassVar[int] = 0
    valid_sets: ClassVar[Sequence[str]] = ("",)

    train: LmArchive
    valid: LmArchive
    opts: LmTrainOptions
    seed: int
    rank: int = 0
    world_size: int = 1

    def train_batches(self, epoch: int, skip_batches: int = 0, bucket_run: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches of one epoch, see :class:`~asr_core.training.task.TaskData`."""
        batches = batches_of(
            self.train.sentence_lengths.tolist(), self.opts.batch_size, self.opts.max_sent_len
        )
        bucket_run = bucket_run or self.world_size
        groups = [batches[i : i + bucket_run] for i in range(0, len(batches), bucket_run)]
        order = np.random.default_rng([self.seed, epoch]).permutation(len(groups))
        shuffled = [batch for i in order for batch in groups[i]]
        for index in range(skip_batches + self.rank, len(shuffled), self.world_size):
            yield _batch(self.train, shuffled[index], index)

    def valid_batches(self, name: str = "") -> Iterator[Batch]:
        """Yield this rank's batches for validation: all sentences, always in the same order."""
        longest = int(self.valid.sentence_lengths.max())
        batches = batches_of(self.valid.sentence_lengths.tolist(), self.opts.batch_size, longest)
        for index in range(self.rank, len(batches), self.world_size):
            yield _batch(self.valid, batches[index], index)

    def size_of(self, batch: Batch) -> BatchSize:
        """Return the number of sentences and of tokens, the ends of sentences included."""
        return BatchSize(len(batch["lens"]), float(batch["lens"].sum()))

    def describe(self, batch: Batch) -> List[Dict[str, object]]:
        """Describe the sentences by their numbers in the archive."""
        return [
            {"id": f"sentence {number}", "tokens": length}
            for number, length in zip(batch["sentences"].tolist(), batch["lens"].tolist())
        ]

    def shape_of(self, batch: Batch) -> List[int]:
        """Return the shape of the tokens."""
        return list(batch["inputs"].shape)

    def report(self) -> float:
        """Log the sizes of both sets; return the tokens in an epoch, with the ends of sentences."""
        longest = self.opts.max_sent_len
        lengths = self.train.sentence_lengths
        used = lengths[lengths <= longest]
        logging.info(
            "Training data: %d sentences of %d tokens; %d left out, as they have more than --max-sent-len %d",
            len(used), int(used.sum()), len(lengths) - len(used), longest,
        )  # fmt: skip
        tokens = int(self.valid.sentence_lengths.sum())
        logging.info("Validation data: %d sentences of %d tokens", self.valid.num_sentences, tokens)
        logging.info("Below, a frame is a token or a sentence's end; both count as tokens")
        return float(used.sum() + len(used))

    def memory_trials(self, device: torch.device) -> None:
        """Return None: all batches have the same number of sentences."""


def _batch(archive: LmArchive, sentences: Sequence[int], index: int) -> Batch:
    picked = torch.as_tensor(sentences)
    x, y, lens = pad_tokens(archive.tokens_of(picked), archive.sentence_lengths[picked])
    return {"inputs": x, "targets": y, "lens": lens, "sentences": picked, "batch_idx": index}


class ConstantRate(LRScheduler):
    """A linear rise over ``warmup_batches``, then ``base_lr``."""

    def __init__(self, optimizer: torch.optim.Optimizer, warmup_batches: float) -> None:
        super().__init__(optimizer)
        self.warmup = Warmup(warmup_batches, start=0.0)

    def factor(self) -> float:
        """Return the share of ``base_lr`` at the present batch."""
        return self.warmup.factor(self.batch)


class LmRecipe(Task):
    """Training of a language model.

    Args:
      params: all options; the tokens of the data are added, for the checkpoints.
      rank, world_size: this process among those that train together.
    """

    unit = "tokens"
    rate_name = "tokens_per_second"
    lr_option = "--lr"
    reference_batches = 1.0  # no module of these models has a schedule

    def __init__(self, params: MutableMapping[str, Any], rank: int = 0, world_size: int = 1) -> None:
        super().__init__(params)
        self._record = params
        self.rank = rank
        self.world_size = world_size
        self.options = from_params(LmTrainOptions, params)

    def build_model(self) -> nn.Module:
        """Build the model that ``--lm-type`` names, on the CPU."""
        vocab_size = self.options.vocab_size
        if self.params["lm_type"] == "rnn":
            return RnnLm(vocab_size, from_params(RnnOptions, self.params))
        return TransformerLm(vocab_size, from_params(TransformerOptions, self.params))

    def shaping_options(self) -> List[str]:
        """Return the names of the options that say the kind of model and its sizes."""
        fields = (*dataclasses.fields(RnnOptions), *dataclasses.fields(TransformerOptions))
        return [*(field.name for field in fields), "lm_type", "vocab_size"]

    def build_data(self) -> LmData:
        """Load the token data.

        Raises:
          UserError: data are missing, have other tokens, or have only sentences that are too long.
        """
        opts = self.options
        train, valid = self._archives()
        self._record[KEY] = train.pieces  # of checkpoints; the log of options was written before
        if not bool((train.sentence_lengths <= opts.max_sent_len).any()):
            raise UserError(
                f"{opts.lm_data} has no sentence of at most --max-sent-len {opts.max_sent_len} tokens"
            )
        seed = from_params(LoopOptions, self.params).seed
        return LmData(train, valid, opts, seed=seed, rank=self.rank, world_size=self.world_size)

    def _archives(self) -> Tuple[LmArchive, LmArchive]:
        """Load training and validation data."""
        opts = self.options
        train, valid = self._archive(opts.lm_data), self._archive(opts.lm_data_valid)
        if train.pieces and valid.pieces:
            found = difference(valid.pieces, train.pieces, "the training data's")
            if found:
                raise UserError(f"{opts.lm_data_valid} has another tokenizer than {opts.lm_data}: {found}")
        return train, valid

    def inputs(self) -> Dict[str, str]:
        """Return digests of the training and the validation data."""
        files = {"--lm-data": self.options.lm_data, "--lm-data-valid": self.options.lm_data_valid}
        return {f"the content of {name}": content_fact(path) for name, path in files.items()}

    def _archive(self, path: str) -> LmArchive:
        archive = LmArchive.load(path)
        if archive.pieces and len(archive.pieces) != self.options.vocab_size:
            number = len(archive.pieces)
            raise UserError(f"{path} was made with {number} tokens: give --vocab-size {number}")
        tokens = int(archive.words.max()) + 1
        if tokens > self.options.vocab_size:
            raise UserError(
                f"{path} has token {tokens - 1}: --vocab-size must be that of its tokenizer, "
                f"not {self.options.vocab_size}"
            )
        return archive

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build Adam with the rate ``--lr``."""
        return torch.optim.Adam(model.parameters(), self.options.lr)

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """Build the schedule: a constant rate after the warm-up."""
        return ConstantRate(optimizer, self.options.warmup_batches)

    def gradient_scaling(self) -> GradientScaling:
        """Return the rule: gradients are summed over the batch and clipped."""
        return GradientScaling(max_norm=self.options.clip_norm)

    def compute_loss(
        self, model: nn.Module, batch: Batch, batch_idx_train: int, reduction: str = "sum"
    ) -> BatchLoss:
        """Compute the negative log-probability of the batch's sentences and their ends.

        Per token it is the logarithm of the perplexity.
        """
        device = next(model.parameters()).device
        x, y, lens = (batch[name].to(device, non_blocking=True) for name in ("inputs", "targets", "lens"))
        nll: Tensor = model(x, y, lens).sum(dim=1)  # (N,)
        return BatchLoss(nll if reduction == "none" else nll.sum(), {}, int(batch["lens"].sum()))

    def describe_valid_loss(self, loss: float) -> str:
        """Return the perplexity."""
        return f"perplexity {math.exp(min(loss, _LARGEST_EXPONENT)):.4g} per token"

    def smaller_batches(self) -> str:
        """Return advice for running out of memory."""
        return (
            f"lower --batch-size (now {self.options.batch_size}), "
            "or --max-sent-len if single sentences are long"
        )

    def slower_learning(self) -> str:
        """Return advice for training that diverges."""
        return f"lower --lr (now {self.options.lr:g}), or raise --warmup-batches"
