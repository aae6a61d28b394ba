"""Training of neural language models by the loop that trains acoustic models: tokens are their frames."""

import logging
import math
from typing import Any, Dict, Iterator, Mapping, MutableMapping, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from asr_core.data.filter import DropReport
from asr_core.lm.archive import LmArchive, batches_of
from asr_core.lm.neural import RnnLm, TransformerLm, pad_tokens
from asr_core.lm.options import LmTrainOptions, RnnOptions, TransformerOptions
from asr_core.training.loop import Trainer
from asr_core.training.optim.stepper import GradientScaling
from asr_core.training.options import TrainOptions
from asr_core.training.recipe import BatchLoss, Recipe
from asr_core.training.schedule import LRScheduler
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

_FRAMES_PER_TOKEN = 100  # the loop measures in seconds of 100 frames: a second is a token


class LmSummary(NamedTuple):
    """What is used of a set: sentences, and tokens with the ends of sentences, which the loop counts as seconds."""

    utterances: int
    seconds: float


class LmDataModule:
    """Makes the batches of language-model training.

    An epoch is one sequence of batches of similarly long sentences, of which rank r takes those at positions r, r + world_size, ...
    A batch holds ``inputs``, ``targets`` (N, L) int64 and ``lens`` (N,) as :func:`asr_core.lm.neural.pad_tokens` makes them, and
    ``supervisions`` and ``batch_idx`` as the loop expects them.

    Args:
      opts: batch size and longest sentence.
      seed: of the order of batches.
      rank, world_size: this process among those that share an epoch.
    """

    def __init__(self, opts: LmTrainOptions, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.opts = opts
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.dropped = DropReport()  # stays empty: what is left out is known before training

    def train_dataloader(
        self, archive: LmArchive, epoch: int, skip_batches: int = 0, bucket_run: int = 0
    ) -> Iterator[Dict[str, Any]]:
        """This rank's batches of one epoch; arguments as for :class:`asr_core.data.module.AsrDataModule`."""
        batches = batches_of(archive.sentence_lengths, self.opts.batch_size, self.opts.max_sent_len)
        bucket_run = bucket_run or self.world_size
        groups = [batches[i : i + bucket_run] for i in range(0, len(batches), bucket_run)]
        order = np.random.default_rng([self.seed, epoch]).permutation(len(groups))
        shuffled = [batch for i in order for batch in groups[i]]
        for index in range(skip_batches + self.rank, len(shuffled), self.world_size):
            yield self._batch(archive, shuffled[index], index)

    def valid_dataloader(self, archive: LmArchive) -> Iterator[Dict[str, Any]]:
        """This rank's batches for validation: all sentences, always in the same order."""
        longest = int(archive.sentence_lengths.max())
        batches = batches_of(archive.sentence_lengths, self.opts.batch_size, longest)
        for index in range(self.rank, len(batches), self.world_size):
            yield self._batch(archive, batches[index], index)

    def _batch(self, archive: LmArchive, sentences: Any, index: int) -> Dict[str, Any]:
        picked = torch.as_tensor(sentences)
        lengths = archive.sentence_lengths[picked]
        x, y, lens = pad_tokens(archive.tokens_of(picked), lengths)
        supervisions = {"text": [f"sentence {i}" for i in sentences], "num_frames": lens * _FRAMES_PER_TOKEN}
        return {"inputs": x, "targets": y, "lens": lens, "supervisions": supervisions, "batch_idx": index}


class ConstantRate(LRScheduler):
    """A linear rise over ``warmup_batches``, then ``base_lr``."""

    def __init__(self, optimizer: torch.optim.Optimizer, warmup_batches: float) -> None:
        super().__init__(optimizer)
        self.warmup_batches = warmup_batches

    def factor(self) -> float:
        """See the class."""
        return self._warmup(self.warmup_batches, 0.0)


class LmRecipe(Recipe):
    """Puts the training of a language model together; arguments as for :class:`Recipe`, without a corpus."""

    unit = "tokens"
    lr_option = "--lr"

    def __init__(self, params: Mapping[str, Any], rank: int = 0, world_size: int = 1) -> None:
        super().__init__(params, None, rank, world_size)  # type: ignore[arg-type]
        self.lm_options = from_params(LmTrainOptions, params)
        if self.lm_options.batch_size < 1 or self.lm_options.max_sent_len < 1:
            raise UserError("--batch-size and --max-sent-len must be at least 1")
        if not self.lm_options.lr > 0:
            raise UserError(f"--lr must be above 0, got {self.lm_options.lr}")

    @classmethod
    def complete(cls, params: MutableMapping[str, Any]) -> None:
        """The loop's names for what has another here; batches of equally many sentences need no scan for the largest."""
        params.update(max_duration=TrainOptions.ref_duration, base_lr=params["lr"], scan_for_oom=False)

    def smaller_batches(self) -> str:
        """See :class:`Recipe`."""
        return f"lower --batch-size (now {self.lm_options.batch_size}), or --max-sent-len if single sentences are long"

    def slower_learning(self) -> str:
        """See :class:`Recipe`."""
        return f"lower --lr (now {self.lm_options.lr:g}), or raise --warmup-batches"

    def train_cuts(self) -> LmArchive:
        """The training data.

        Raises:
          UserError: it is missing, has other tokens, or only sentences that are too long.
        """
        archive = self._archive(self.lm_options.lm_data)
        if not bool((archive.sentence_lengths <= self.lm_options.max_sent_len).any()):
            raise UserError(
                f"{self.lm_options.lm_data} has no sentence of at most --max-sent-len {self.lm_options.max_sent_len} tokens"
            )
        return archive

    def valid_sets(self) -> Dict[str, LmArchive]:
        """The validation data."""
        return {"": self._archive(self.lm_options.lm_data_valid)}

    def _archive(self, path: str) -> LmArchive:
        archive = LmArchive.load(path)
        tokens = int(archive.words.max()) + 1
        if tokens > self.lm_options.vocab_size:
            raise UserError(
                f"{path} has token {tokens - 1}: --vocab-size must be that of its tokenizer, not {self.lm_options.vocab_size}"
            )
        return archive

    def build_model(self) -> nn.Module:
        """The model that ``--lm-type`` names, on the CPU."""
        vocab_size = self.lm_options.vocab_size
        if self.params["lm_type"] == "rnn":
            o = from_params(RnnOptions, self.params)
            return RnnLm(vocab_size, o.embedding_dim, o.hidden_dim, o.num_layers, o.tie_weights)
        t = from_params(TransformerOptions, self.params)
        sizes = (t.encoder_dim, t.embedding_dim, t.dim_feedforward, t.nhead, t.num_layers)
        return TransformerLm(vocab_size, *sizes, t.tie_weights, t.dropout)

    def build_datamodule(self) -> LmDataModule:
        """What makes the batches."""
        return LmDataModule(self.lm_options, self.options.seed, self.rank, self.world_size)

    def report_data(self, data: Any, train_cuts: LmArchive, valid_sets: Mapping[str, LmArchive]) -> LmSummary:
        """Log the sizes of all sets; return the training set's."""
        lengths = train_cuts.sentence_lengths
        used = lengths[lengths <= self.lm_options.max_sent_len]
        logging.info(
            "Training data: %d sentences of %d tokens; %d left out, as they have more than --max-sent-len %d",
            len(used), int(used.sum()), len(lengths) - len(used), self.lm_options.max_sent_len,
        )  # fmt: skip
        for archive in valid_sets.values():
            logging.info(
                "Validation data: %d sentences of %d tokens",
                archive.num_sentences,
                int(archive.sentence_lengths.sum()),
            )
        logging.info("Below, a frame is a token or a sentence's end; both count as tokens")
        return LmSummary(len(used), float(used.sum() + len(used)))

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(model.parameters(), self.lm_options.lr)

    def gradient_scaling(self) -> GradientScaling:
        """The sum of the gradients, clipped."""
        return GradientScaling(max_norm=self.lm_options.clip_norm)

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """A constant rate after the warm-up."""
        return ConstantRate(optimizer, self.lm_options.warmup_batches)

    def compute_loss(
        self, model: nn.Module, batch: Dict[str, Any], batch_idx_train: int, reduction: str = "sum"
    ) -> BatchLoss:
        """Negative log probability of the batch's sentences and their ends; per token it is the log of the perplexity."""
        device = next(model.parameters()).device
        x, y, lens = (batch[name].to(device, non_blocking=True) for name in ("inputs", "targets", "lens"))
        nll: Tensor = model(x, y, lens).sum(dim=1)
        return BatchLoss(nll if reduction == "none" else nll.sum(), {}, int(batch["lens"].sum()))


class LmTrainer(Trainer):
    """The loop; a validation tells the perplexity too."""

    def _validate(self) -> bool:
        if not super()._validate():
            return False
        perplexity = math.exp(min(self.state.valid_loss, 700.0))
        logging.info("Epoch %d, validation: perplexity %.4g per token", self.state.epoch, perplexity)
        return True
