"""Options of training; light, so that ``--help`` needs neither torch nor lhotse."""

from dataclasses import dataclass
from typing import Optional

from asr_core.utils.errors import UserError
from asr_core.utils.options import option


@dataclass
class TrainOptions:
    """Training: how long, how fast, what is written."""

    world_size: int = option(
        1, "number of processes on this machine, each with a GPU or its share of the CPU's cores"
    )
    master_port: int = option(
        12354,
        "where the processes of --world-size meet; another port is taken if this one is busy and not changed",
    )
    dist_timeout: float = option(
        1800.0,
        "seconds after which a process that does not answer the others is given up, and the run with it",
    )
    device: str = option(
        "auto", "where to train; auto takes CUDA if there is any", choices=("auto", "cpu", "cuda")
    )
    num_threads: int = option(
        0, "CPU threads of tensor operations; 0 takes all cores that this process may use"
    )
    tensorboard: bool = option(True, "write scalars for TensorBoard into <exp-dir>/tensorboard")
    num_epochs: int = option(30, "last epoch; epochs count from 1")
    max_steps: int = option(0, "stop after this many batches from the start of training; 0: no such limit")
    start_epoch: int = option(
        1, "above 1: resume from epoch-<N-1>.pt; otherwise from the newest whole checkpoint, if there is one"
    )
    start_batch: int = option(0, "above 0: resume from checkpoint-<N>.pt, whatever --start-epoch says")
    exp_dir: str = option("zipformer/exp", "folder of this run: checkpoints, logs, metrics")
    bpe_model: str = option(
        "data/lang_bpe_500/bpe.model", "tokenizer: a SentencePiece model, or a folder with bpe.model"
    )
    ref_duration: float = option(
        600.0, "seconds of audio in a reference batch; scales the counter behind dropout and other schedules"
    )
    prune_range: int = option(5, "symbols per frame that the pruned loss keeps")
    lm_scale: float = option(0.25, "weight of the predictor-only term in the simple loss")
    am_scale: float = option(0.0, "weight of the encoder-only term in the simple loss")
    simple_loss_scale: float = option(0.5, "weight of the simple loss after --warm-step")
    delay_penalty: float = option(
        0.0,
        "after --warm-step, score of a transducer's symbol for each frame that it comes before the middle of the utterance, e.g. 0.01",
    )
    fast_emit_lambda: float = option(
        0.0,
        "FastEmit: a transducer's gradients with respect to symbols, not blanks, are multiplied by 1 + this, e.g. 0.005",
    )
    ctc_loss_scale: float = option(
        0.2, "weight of the CTC loss beside others; where it is the only one, it is 1"
    )
    cr_loss_scale: float = option(0.2, "weight of the consistency loss of --use-cr-ctc 1, after --warm-step")
    time_mask_ratio: float = option(
        2.5, "number and total length of the time masks of --use-cr-ctc 1, relative to SpecAugment's"
    )
    intermediate_ctc_loss_scale: float = option(
        0.1, "weight of the mean of the CTC losses of --intermediate-ctc-stacks"
    )
    attention_decoder_loss_scale: float = option(
        0.8,
        "weight of the attention decoder's loss; without a transducer it and --ctc-loss-scale must sum to 1",
    )
    label_smoothing: float = option(
        0.1, "share of the attention decoder's targets that is spread over all tokens"
    )
    warm_step: int = option(
        2000, "batches over which the weights of simple and pruned loss move to their final values"
    )
    seed: int = option(42, "seed of weights, data order, augmentation and dropout")
    log_interval: int = option(50, "batches between two log lines")
    reset_interval: int = option(200, "batches over which tot_loss averages")
    valid_interval: int = option(
        3000, "batches between two validations; there is one at the end of each epoch too"
    )
    save_every_n: int = option(4000, "batches between two checkpoint-<N>.pt; not less than --average-period")
    keep_last_k: int = option(30, "how many checkpoint-<N>.pt to keep; epoch-<N>.pt are never removed")
    average_period: int = option(200, "batches between two updates of the averaged model")
    accum_grad: int = option(
        1, "batches whose gradients make one step; all other counts of batches are of steps then"
    )
    max_bad_batches: int = option(
        10, "so many batches in a row whose loss or gradient is not finite end the run, or see --auto-recover"
    )
    divergence_factor: float = option(
        3.0,
        "the loss diverges if it is above so many times its lowest running average for --reset-interval batches on end; 0: never",
    )
    auto_recover: bool = option(
        False,
        "where training fails (bad batches in a row, loss scale, divergence) go back to the last good average and on, more slowly",
    )
    recover_lr_factor: float = option(0.7, "factor on the learning rate after each return of --auto-recover")
    max_recoveries: int = option(3, "how often --auto-recover goes back before it gives up")
    valid_wer_interval: int = option(
        1, "epochs between two word error rates of a greedy search on validation cuts; 0: none"
    )
    valid_wer_cuts: int = option(100, "so many validation cuts, at most, are decoded for it")
    allow_unk: bool = option(
        False, "leave out training cuts with characters that the tokens lack, in place of refusing to train"
    )
    scan_for_oom: Optional[bool] = option(
        None, "try the largest batches before training; left out: on GPUs alone"
    )
    print_diagnostics: bool = option(
        False,
        "no training: statistics of activations, gradients and parameters over a few batches, into <exp-dir>/diagnostics.txt",
    )
    inf_check: bool = option(
        False, "name the first module whose output, gradient or parameter gradient is not finite; slow"
    )
    use_fp16: bool = option(False, "float16 mixed precision with loss scaling (CUDA)")
    use_bf16: bool = option(False, "bfloat16 mixed precision")

    def validate(self) -> None:
        """Refuse values that contradict each other or make no sense.

        Raises:
          UserError: naming the option and what it may be.
        """
        if self.use_fp16 and self.use_bf16:
            raise UserError("--use-fp16 and --use-bf16 exclude each other")
        if self.save_every_n < self.average_period:
            raise UserError(
                f"--save-every-n {self.save_every_n} must not be less than --average-period {self.average_period}"
            )
        for name in (
            "world_size", "num_epochs", "start_epoch", "prune_range", "log_interval", "reset_interval", "valid_interval", "save_every_n",
            "keep_last_k", "average_period", "max_bad_batches", "accum_grad", "valid_wer_cuts",
        ):  # fmt: skip
            self._at_least(name, 1)
        for name in ("ref_duration", "dist_timeout"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be above 0, got {getattr(self, name)}")
        for name in (
            "max_steps",
            "start_batch",
            "num_threads",
            "warm_step",
            "max_recoveries",
            "valid_wer_interval",
        ):
            self._at_least(name, 0)
        if not 0 < self.recover_lr_factor < 1:
            raise UserError(f"--recover-lr-factor must be between 0 and 1, got {self.recover_lr_factor}")
        if self.divergence_factor != 0 and not self.divergence_factor > 1:
            raise UserError(
                f"--divergence-factor must be above 1, or 0 for never, got {self.divergence_factor}"
            )
        for name in (
            "delay_penalty",
            "fast_emit_lambda",
            "ctc_loss_scale",
            "cr_loss_scale",
            "intermediate_ctc_loss_scale",
            "attention_decoder_loss_scale",
        ):
            self._at_least(name, 0)
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label-smoothing must be at least 0 and below 1, got {self.label_smoothing}")
        if not 0.1 <= self.time_mask_ratio <= 6:
            raise UserError(
                f"--time-mask-ratio must be from 0.1 to 6 (masks hide up to 15 % times it), got {self.time_mask_ratio}"
            )

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
