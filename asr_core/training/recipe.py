"""The places where a recipe differs from the rest: subclass :class:`Recipe` and override what is particular."""

import argparse
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, MutableMapping, NamedTuple

from asr_core.training.losses import LOG_NAMES, check_heads, early_emission, loss_weights
from asr_core.training.optimizer_options import OptimizerOptions
from asr_core.training.options import TrainOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

if TYPE_CHECKING:
    import torch
    from torch import nn

    from asr_core.data.corpus import Corpus
    from asr_core.data.two_views import TwoViews
    from asr_core.text.tokenizer import Tokenizer
    from asr_core.training.optim.stepper import GradientScaling
    from asr_core.training.optim.weight_noise import WeightNoise


class BatchLoss(NamedTuple):
    """What :meth:`Recipe.compute_loss` gives.

    Attributes:
      loss: what is minimised; a scalar, or (N,) with ``reduction="none"``.
      parts: its unweighted parts by name, for the log; shapes as ``loss``.
      frames: encoder frames of the batch, which logged losses are divided by.
    """

    loss: "torch.Tensor"
    parts: Dict[str, "torch.Tensor"]
    frames: int


class Recipe:
    """How one training is put together; each method may be overridden by a recipe's ``train.py``.

    Args:
      params: all options.
      corpus: where the cuts come from.
      rank, world_size: this process among those that train together.

    Raises:
      UserError: heads, weights of losses or options of the optimizer that contradict each other.

    Attributes:
      batch_count_offset: added to the counter that drives dropout and other schedules of modules.
      purpose: how the program's ``--help`` begins.
      unit: what the sizes of batches are counted in, for the log.
      lr_option: the option that sets the learning rate, for messages.
    """

    batch_count_offset: float = 0.0
    purpose: str = "Train a model"
    unit: str = "s"
    lr_option: str = "--base-lr"

    def __init__(
        self, params: Mapping[str, Any], corpus: "Corpus", rank: int = 0, world_size: int = 1
    ) -> None:
        self.params = params
        self.corpus = corpus
        self.rank = rank
        self.world_size = world_size
        self.options = from_params(TrainOptions, params)
        self.optimization = from_params(OptimizerOptions, params)
        self.optimization.validate()
        if self.optimization.schedule == "piecewise":
            self.lr_option = "--lr-pieces"
        check_heads(params)
        self._tokenizer: Any = None
        self._views: Any = None

    @property
    def subsampling_factor(self) -> int:
        """Feature frames per frame of encoder output."""
        return int(self.params.get("subsampling_factor", 4))

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add options that only this recipe has; by default none."""

    @classmethod
    def complete(cls, params: MutableMapping[str, Any]) -> None:
        """Fill in what the options imply, before anything is built from them; by default nothing.

        Raises:
          UserError: they contradict each other.
        """

    def smaller_batches(self) -> str:
        """What to do where memory does not suffice, for messages."""
        return f"lower --max-duration (now {float(self.params['max_duration']):g}), or --max-utt-duration if single cuts are long"

    def slower_learning(self) -> str:
        """What to do where training fails, for messages."""
        opts = self.optimization
        if opts.schedule == "piecewise":
            return f"lower the rates of --lr-pieces (now up to {opts.peak_lr():g})"
        if opts.optim != "scaled_adam":
            return f"lower --base-lr (now {opts.base_lr:g}), give --clip-grad-norm (now {opts.clip_grad_norm:g}), or raise --warmup-batches"
        return f"lower --base-lr (now {opts.base_lr:g}) in steps of 0.005, but not below 0.02, or raise --warm-step"

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of ``--bpe-model``, loaded once."""
        if self._tokenizer is None:
            from asr_core.text.tokenizer import Tokenizer

            self._tokenizer = Tokenizer.load(self.options.bpe_model)
        return self._tokenizer

    @property
    def views(self) -> "TwoViews":
        """What makes the two views of CR-CTC."""
        if self._views is None:
            from asr_core.data.augment import adaptive_spec_augment
            from asr_core.data.options import DataOptions
            from asr_core.data.two_views import TwoViews

            data, ratio = from_params(DataOptions, self.params), self.options.time_mask_ratio
            if data.spec_aug == "adaptive":
                self._views = TwoViews(0, ratio, adaptive_spec_augment(data, ratio))
            else:
                self._views = TwoViews(data.spec_aug_time_warp_factor, ratio)
        return self._views

    def train_cuts(self) -> Any:
        """The training cuts; by default the corpus'."""
        return self.corpus.train_cuts()

    def valid_sets(self) -> Dict[str, Any]:
        """Validation cuts by name; where there are several sets, the losses of each are recorded besides those of all."""
        return {"": self.corpus.valid_cuts()}

    def build_model(self) -> "nn.Module":
        """The model, on the CPU."""
        from asr_core.models.build import build_model
        from asr_core.models.options import options_of
        from asr_core.text.tokenizer import SOS_EOS

        opts = options_of(self.params)
        if opts.use_attention_decoder and self.tokenizer.pieces[1:2] != [SOS_EOS]:
            raise UserError(
                f"an attention decoder needs {SOS_EOS} as the token with id 1, which {self.tokenizer.path} does not have"
            )
        model = build_model(opts, self.tokenizer.vocab_size, self.params["num_mel_bins"])
        if opts.use_attention_decoder:
            model.attention_decoder.label_smoothing = self.options.label_smoothing
        return model

    def build_datamodule(self) -> Any:
        """What makes the loaders: ``train_dataloader(cuts, epoch, skip_batches)`` and ``valid_dataloader(cuts)``."""
        from asr_core.data.module import AsrDataModule
        from asr_core.data.options import DataOptions

        opts = from_params(DataOptions, self.params)
        if opts.strategy == "AudioSamples":
            raise UserError(
                "--input-strategy AudioSamples gives audio, and the models here take features: give another strategy"
            )
        return AsrDataModule(
            opts, self.options.seed, self.tokenizer, self.rank, self.world_size, self.subsampling_factor
        )

    def report_data(self, data: Any, train_cuts: Any, valid_sets: Mapping[str, Any]) -> Any:
        """Log what all sets hold and what was dropped and why; return the training set's summary, which has ``seconds``.

        ``data`` is what :meth:`build_datamodule` gave.
        """
        from asr_core.training.reporting.startup_report import report_data

        return report_data(data, train_cuts, valid_sets, str(self.tokenizer.path), self.options.allow_unk)

    def build_optimizer(self, model: "nn.Module") -> "torch.optim.Optimizer":
        """The optimizer that ``--optimizer`` names."""
        from asr_core.training.optim.adam import build_adam
        from asr_core.training.optim.scaled_adam import ScaledAdam, get_parameter_groups_with_lrs

        opts = self.optimization
        if opts.optim != "scaled_adam":
            return build_adam(model, opts)
        groups = get_parameter_groups_with_lrs(model, lr=opts.peak_lr(), include_names=True)
        return ScaledAdam(groups, lr=opts.peak_lr(), clipping_scale=opts.clipping_scale or None)

    def build_scheduler(self, optimizer: "torch.optim.Optimizer") -> Any:
        """The learning-rate schedule: has ``step_batch``, ``step_epoch``, ``get_last_lr``, ``state_dict``, ``load_state_dict``."""
        from asr_core.training.schedule import build_scheduler

        return build_scheduler(optimizer, self.optimization)

    def gradient_scaling(self) -> "GradientScaling":
        """What is done with gradients before the optimizer's step, if it does not look after them itself."""
        from asr_core.training.optim.stepper import GradientScaling

        return GradientScaling(self.optimization.gradient_mean, self.optimization.clip_grad_norm)

    def weight_noise(self, model: "nn.Module") -> "WeightNoise":
        """Variational noise on modules of the model."""
        from asr_core.models.options import options_of
        from asr_core.training.optim.weight_noise import WeightNoise

        opts, of_module = options_of(self.params), {}
        if opts.use_transducer and opts.predictor == "lstm":
            of_module["decoder"] = opts.predictor_noise
        if opts.use_transducer:
            of_module["joiner"] = opts.joiner_noise
        return WeightNoise(model, of_module, opts.predictor_noise_start, self.options.seed)

    def compute_loss(
        self, model: "nn.Module", batch: Dict[str, Any], batch_idx_train: int, reduction: str = "sum"
    ) -> BatchLoss:
        """The loss of one batch, summed over its N utterances.

        Args:
          model: in training or evaluation mode.
          batch: as the data module makes it.
          batch_idx_train: batches since the start of training; sets the weights of the loss's parts.
          reduction: ``"sum"``, or ``"none"`` for one loss per utterance.
        """
        opts = self.options
        device = next(model.parameters()).device
        supervisions = batch["supervisions"]
        x = batch["inputs"].to(device, non_blocking=True)
        x_lens = supervisions["num_frames"].to(device).long()
        y: List[List[int]] = self.tokenizer.encode(supervisions["text"])
        args = {
            "prune_range": opts.prune_range,
            "am_scale": opts.am_scale,
            "lm_scale": opts.lm_scale,
            "reduction": reduction,
        }
        args.update(early_emission(opts, batch_idx_train))
        if (
            self.params.get("use_cr_ctc", False) and model.training
        ):  # in evaluation both views would be the same
            x = self.views(x, supervisions["start_frame"], supervisions["num_frames"])
            x_lens, y = x_lens.repeat(2), y + y
            args["use_cr_ctc"] = True
        losses = {
            name: loss for name, loss in model(x, x_lens, y, **args)._asdict().items() if loss is not None
        }
        weights = loss_weights(opts, batch_idx_train, losses)
        total = sum(weights[name] * loss for name, loss in losses.items())
        parts = {LOG_NAMES.get(name, name): loss.detach() for name, loss in losses.items()}
        frames = int((supervisions["num_frames"] // self.subsampling_factor).sum())
        return BatchLoss(total, parts, frames)  # type: ignore[arg-type]
