"""Training of speech recognition: subclass :class:`AsrRecipe` and override what differs."""

import argparse
import dataclasses
import functools
import hashlib
from typing import TYPE_CHECKING, Any, Collection, Dict, List, Mapping, MutableMapping, Optional

import torch
from torch import Tensor, nn

from asr_core.data.augment import adaptive_spec_augment
from asr_core.data.batch import with_words
from asr_core.data.dataset import batch_seed
from asr_core.data.device_features import with_inputs_on
from asr_core.data.gain import random_gain
from asr_core.data.module import AsrDataModule, Survey
from asr_core.data.options import DataOptions
from asr_core.data.two_views import TwoViews
from asr_core.decoding.validation_wer import GreedyErrors
from asr_core.models.build import build_model
from asr_core.models.options import options_of
from asr_core.text.tokenizer import SOS_EOS, Tokenizer
from asr_core.training.asr_data import AsrData
from asr_core.training.batch_loss import BatchLoss
from asr_core.training.data_facts import facts_of_data
from asr_core.training.loss_options import LossOptions
from asr_core.training.losses import LOG_NAMES, check_heads, early_emission, frame_needs, loss_weights
from asr_core.training.optim.adam import build_adam
from asr_core.training.optim.scaled_adam import ScaledAdam, get_parameter_groups_with_lrs
from asr_core.training.optim.stepper import GradientScaling
from asr_core.training.optim.weight_noise import WeightNoise
from asr_core.training.optimizer_options import OptimizerOptions
from asr_core.training.options import LoopOptions, SpeechOptions
from asr_core.training.reporting.startup_report import report_data
from asr_core.training.schedule import LRScheduler, build_scheduler
from asr_core.training.task import Batch, Task
from asr_core.training.word_error_metric import WordErrorMetric
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

if TYPE_CHECKING:
    from lhotse import CutSet

    from asr_core.data.corpus import Corpus


class AsrRecipe(Task):
    """Training of a speech recognizer.

    A recipe that needs more than other options subclasses it, overrides a method or two, and gives
    the class to :func:`asr_core.bin.train.main`. The methods meant for that: ``add_arguments``,
    ``build_model``, ``build_datamodule``, ``build_optimizer``, ``build_scheduler``,
    ``compute_loss``, ``loss_weights``.

    Args:
      params: all options.
      corpus: corpus of the cuts.
      rank, world_size: this process among those that train together.

    Raises:
      UserError: heads, weights of losses, options of the optimizer or gains that contradict each
        other.

    Attributes:
      options, loss_options, optimizer_options: the options that concern a recipe.
      gain: the random levels of training utterances; None for none.
      plateau_batches: batches of training before they start, and cuts without words come in.
    """

    def __init__(
        self, params: Mapping[str, Any], corpus: "Corpus", rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(params)
        self.corpus = corpus
        self.rank = rank
        self.world_size = world_size
        self.seed = from_params(LoopOptions, params).seed
        self.options = from_params(SpeechOptions, params)
        self.loss_options = from_params(LossOptions, params)
        self.optimizer_options = from_params(OptimizerOptions, params)
        self.optimizer_options.validate()
        self.ema_decay = self.optimizer_options.ema_decay
        self.valid_with_ema = self.optimizer_options.valid_with_ema
        if self.optimizer_options.schedule == "piecewise":
            self.lr_option = "--lr-pieces"
        check_heads(params)
        self.gain = random_gain(from_params(DataOptions, params))
        plateau = self.loss_options.plateau_batches
        self.plateau_batches = 2 * self.loss_options.warm_step if plateau is None else plateau

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this recipe has; by default none."""

    @classmethod
    def complete(cls, params: MutableMapping[str, Any]) -> None:
        """Fill in the options that others imply, before anything is built; by default none.

        Raises:
          UserError: they contradict each other.
        """

    # -- the parts -------------------------------------------------------------------------------

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of ``--bpe-model``."""
        return Tokenizer.load(self.options.bpe_model)

    @functools.cached_property
    def views(self) -> TwoViews:
        """The augmentation that makes the two views of CR-CTC."""
        data, ratio = from_params(DataOptions, self.params), self.loss_options.time_mask_ratio
        if data.spec_aug == "adaptive":
            return TwoViews(0, ratio, adaptive_spec_augment(data, ratio))
        return TwoViews(data.spec_aug_time_warp_factor, ratio)

    @property
    def subsampling_factor(self) -> int:
        """Feature frames per frame of encoder output."""
        return int(self.params.get("subsampling_factor", 4))

    def build_model(self) -> nn.Module:
        """Build the model that the options describe, on the CPU."""
        opts = options_of(self.params)
        if opts.use_attention_decoder and self.tokenizer.pieces[1:2] != [SOS_EOS]:
            raise UserError(
                f"an attention decoder needs {SOS_EOS} as the token with id 1, "
                f"which {self.tokenizer.path} does not have"
            )
        model = build_model(opts, self.tokenizer.vocab_size, self.params["num_mel_bins"])
        decoder = getattr(model, "attention_decoder", None)
        if decoder is not None:
            decoder.label_smoothing = self.loss_options.label_smoothing
        return model

    def shaping_options(self) -> List[str]:
        """Return the names of the model's options, and of the sizes of its input and output."""
        fields = dataclasses.fields(options_of(self.params))
        return [*(field.name for field in fields), "num_mel_bins", "vocab_size"]

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer that ``--optimizer`` names."""
        opts = self.optimizer_options
        if opts.optim != "scaled_adam":
            return build_adam(model, opts)
        groups = get_parameter_groups_with_lrs(model, lr=opts.peak_lr(), include_names=True)
        return ScaledAdam(groups, lr=opts.peak_lr(), clipping_scale=opts.clipping_scale or None)

    def build_scheduler(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """Build the learning-rate schedule that ``--schedule`` names."""
        return build_scheduler(optimizer, self.optimizer_options)

    def gradient_scaling(self) -> GradientScaling:
        """Return the options' rule; ScaledAdam, which clips by itself, does not use it."""
        opts = self.optimizer_options
        return GradientScaling(opts.gradient_mean, opts.clip_grad_norm)

    def weight_noise(self, model: nn.Module) -> WeightNoise:
        """Return the variational noise on prediction network and joiner."""
        opts, std_of = options_of(self.params), {}
        if opts.use_transducer and opts.predictor == "lstm":
            std_of["decoder"] = opts.predictor_noise
        if opts.use_transducer:
            std_of["joiner"] = opts.joiner_noise
        return WeightNoise(model, std_of, opts.predictor_noise_start, self.seed)

    # -- data ------------------------------------------------------------------------------------

    @property
    def reference_batches(self) -> float:
        """``--max-duration`` in units of ``--ref-duration``; 0 if the size does not count."""
        if self.options.ref_duration == 0:
            return 0.0
        return float(self.params["max_duration"]) / self.options.ref_duration

    def train_cuts(self) -> "CutSet":
        """Return the training cuts; by default those of the corpus."""
        return self.corpus.train_cuts()

    def valid_sets(self) -> Dict[str, "CutSet"]:
        """Return validation cuts by name; of several sets, each one's losses are recorded, too."""
        return {"": self.corpus.valid_cuts()}

    def inputs(self) -> Dict[str, str]:
        """Return digests of the tokens and of all manifests, see :func:`facts_of_data`."""
        pieces = "\n".join(self.tokenizer.pieces)
        valid = {f"the validation cuts {name}".strip(): cuts for name, cuts in self.valid_sets().items()}
        return {
            "the tokens of --bpe-model": hashlib.sha256(pieces.encode()).hexdigest()[:12],
            **facts_of_data(
                {"the training cuts": self.train_cuts(), **valid}, from_params(DataOptions, self.params)
            ),
        }

    def build_datamodule(self) -> AsrDataModule:
        """Build the loaders of training and validation batches."""
        opts = from_params(DataOptions, self.params)
        if opts.strategy == "AudioSamples":
            raise UserError(
                "--input-strategy AudioSamples gives audio, and the models here take features: "
                "give another strategy"
            )
        return AsrDataModule(
            opts,
            self.seed,
            self.tokenizer,
            self.rank,
            self.world_size,
            self.subsampling_factor,
            frame_needs(options_of(self.params), self.loss_options),
        )

    def build_data(self) -> AsrData:
        """Open the cuts and build their loaders."""
        return AsrData(
            self.build_datamodule(),
            self.train_cuts(),
            self.valid_sets(),
            survey=self.report_data,
            scan_for_oom=self.options.scan_for_oom,
        )

    def report_data(
        self, data: AsrDataModule, train_cuts: "CutSet", valid_sets: Mapping[str, "CutSet"]
    ) -> Survey:
        """Log the sizes of all sets, and which cuts were dropped and why.

        Args:
          data: the loaders, as :meth:`build_datamodule` built them.
          train_cuts, valid_sets: training cuts; validation cuts by name.

        Returns:
          The survey of the training set.

        Raises:
          UserError: no cut can be used, or some have characters that the tokens lack.
        """
        return report_data(data, train_cuts, valid_sets, str(self.tokenizer.path), self.options.allow_unk)

    # -- the loss --------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, batch: Batch, batch_idx_train: int, reduction: str = "sum"
    ) -> BatchLoss:
        """Compute the weighted sum of the losses of all heads over a batch of N utterances.

        Args:
          model: in training or evaluation mode.
          batch: a batch of the data module.
          batch_idx_train: batches since the start of training; the weights of losses depend on it.
          reduction: ``"sum"``, or ``"none"`` for one loss per utterance.
        """
        opts = self.loss_options
        device = next(model.parameters()).device
        batch = with_inputs_on(batch, device)
        on_plateau = model.training and batch_idx_train <= self.plateau_batches
        if on_plateau and reduction == "sum":
            batch = with_words(batch)
        supervisions = batch["supervisions"]
        x = batch["inputs"]  # (N, T, C)
        x_lens = supervisions["num_frames"].long()  # (N,), of which the model wants to know on the CPU
        y: List[List[int]] = self.tokenizer.encode(supervisions["text"])
        if model.training and self.gain is not None and not on_plateau:
            x = self.gain(x, batch_seed(self.seed, batch_idx_train, batch["batch_idx"]))
        args: Dict[str, Any] = {
            "prune_range": opts.prune_range,
            "am_scale": opts.am_scale,
            "lm_scale": opts.lm_scale,
            "reduction": reduction,
        }
        args.update(early_emission(opts, batch_idx_train))
        if self.params.get("use_cr_ctc", False) and model.training:
            # (2N, T, C); in evaluation, without masks, both views would be the same
            x = self.views(x, supervisions["start_frame"], supervisions["num_frames"])
            x_lens, y = x_lens.repeat(2), y + y
            args["use_cr_ctc"] = True
        losses: Dict[str, Tensor] = {
            name: loss for name, loss in model(x, x_lens, y, **args)._asdict().items() if loss is not None
        }
        weights = self.loss_weights(batch_idx_train, losses)
        first, *others = [weights[name] * loss for name, loss in losses.items()]
        parts = {LOG_NAMES.get(name, name): loss.detach() for name, loss in losses.items()}
        frames = int((supervisions["num_frames"] // self.subsampling_factor).sum())
        return BatchLoss(sum(others, first), parts, frames)

    def loss_weights(self, batch_idx_train: int, heads: Collection[str]) -> Dict[str, float]:
        """Return the weight of each head's loss, by its name in ``heads``.

        Args:
          batch_idx_train: batches since the start of training.
          heads: names of the losses that the model has, e.g. ``"ctc_loss"``.
        """
        return loss_weights(self.loss_options, batch_idx_train, heads)

    def build_metric(self) -> Optional[WordErrorMetric]:
        """Build the word error rate of a greedy search, as ``--valid-wer-interval`` asks for it."""
        if not self.options.valid_wer_interval:
            return None
        search = GreedyErrors(self.tokenizer.decode, self.corpus.normalize)
        return WordErrorMetric(search, self.options, num_ranks=self.world_size)

    # -- advice ----------------------------------------------------------------------------------

    def smaller_batches(self) -> str:
        """Return advice for running out of memory."""
        return (
            f"lower --max-duration (now {float(self.params['max_duration']):g}), "
            "or --max-utt-duration if single cuts are long"
        )

    def slower_learning(self) -> str:
        """Return advice for training that diverges."""
        opts = self.optimizer_options
        if opts.schedule == "piecewise":
            return f"lower the rates of --lr-pieces (now up to {opts.peak_lr():g})"
        if opts.optim != "scaled_adam":
            return (
                f"lower --base-lr (now {opts.base_lr:g}), give --clip-grad-norm "
                f"(now {opts.clip_grad_norm:g}), or raise --warmup-batches"
            )
        return (
            f"lower --base-lr (now {opts.base_lr:g}) in steps of 0.005, but not below 0.02, "
            "or raise --warm-step"
        )
