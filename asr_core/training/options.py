"""Options of training; light, so that ``--help`` needs neither torch nor lhotse."""

from dataclasses import dataclass
from typing import Any, Collection, Dict, Optional

from asr_core.utils.errors import UserError
from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import MAX_PROCESSES
from asr_core.utils.options import option
from asr_core.utils.runtime import num_threads_option


@dataclass
class ProcessOptions:
    """Processes: how many, on which device, in which precision."""

    world_size: int = option(
        1,
        "number of processes on this machine, each with a GPU or its share of the CPU's cores",
        at_least=1,
        at_most=MAX_PROCESSES,
    )
    master_port: int = option(
        12354,
        "where the processes of --world-size meet; the default stands for any free port",
        at_least=1,
        at_most=65535,
    )
    dist_timeout: float = option(
        1800.0,
        "seconds after which a process that does not answer the others is given up, and the run with it",
        above=0,
        at_most=10_000_000,
    )
    ddp_compression: str = option(
        "none",
        "type in which the gradients of several processes travel, to be summed in it; fp16 gets a scale for "
        "each bucket and does not overflow",
        choices=("none", "fp16", "bf16"),
    )
    shard: str = option(
        "none",
        "what several processes divide among them: fsdp, the weights, their gradients and averages, and the "
        "optimizer's state, for models that do not fit otherwise",
        choices=("none", "fsdp"),
    )
    device: str = option(
        "auto", "where to train; auto takes CUDA if there is any", choices=("auto", "cpu", "cuda")
    )
    num_threads: int = num_threads_option()
    use_fp16: bool = option(False, "float16 mixed precision with loss scaling (CUDA)")
    use_bf16: bool = option(False, "bfloat16 mixed precision")
    activation_checkpointing: str = option(
        "none",
        "what layers keep for the backward pass; layer: their inputs alone, so that larger batches fit, "
        "in about a third more time; selective: the results of linear maps too",
        choices=("none", "layer", "selective"),
    )
    compile: bool = option(
        False,
        "compile layers by torch.compile, in some minutes at the first batches; Zipformer, Conformer, "
        "ContextNet and transformer LMs",
    )


@dataclass
class LoopOptions(ProcessOptions):
    """Training: its length, its processes, its records."""

    tensorboard: bool = option(True, "write scalars for TensorBoard into <exp-dir>/tensorboard")
    num_epochs: int = option(30, "last epoch; epochs count from 1", at_least=1)
    max_steps: int = option(
        0,
        "stop after this many batches from the start of training; without --num-epochs the only limit; "
        "0: no such limit",
        at_least=0,
    )
    start_epoch: int = option(
        1,
        "above 1: resume from epoch-<N-1>.pt; otherwise from the newest whole checkpoint, if there is one",
        at_least=1,
    )
    start_batch: int = option(
        0, "above 0: resume from checkpoint-<N>.pt, whatever --start-epoch says", at_least=0
    )
    exp_dir: str = option(
        "zipformer/exp", "folder of this run: checkpoints, logs, metrics", path=PathKind.PLACE
    )
    seed: int = option(42, "seed of weights, data order, augmentation and dropout", at_least=0)
    log_interval: int = option(50, "batches between two log lines", at_least=1)
    reset_interval: int = option(200, "batches over which tot_loss averages", at_least=1)
    valid_interval: int = option(
        3000, "batches between two validations; there is one at the end of each epoch too", at_least=1
    )
    save_every_n: int = option(
        4000,
        "batches between two checkpoint-<N>.pt; --average-period follows if it is longer and not given",
        at_least=1,
    )
    keep_last_k: int = option(
        30, "how many checkpoint-<N>.pt to keep; epoch-<N>.pt are never removed", at_least=1
    )
    average_period: int = option(200, "batches between two updates of the averaged model", at_least=1)
    accum_grad: int = option(
        1,
        "batches whose gradients make one step; all other counts of batches are of steps then",
        at_least=1,
    )
    max_bad_batches: int = option(
        10,
        "end the run, or see --auto-recover, after this many batches in a row whose loss or gradient is "
        "not finite",
        at_least=1,
    )
    divergence_factor: float = option(
        3.0,
        "the loss diverges if it stays above this times its lowest running average for --reset-interval "
        "batches; 0: never",
        above=1,
        unless=0,
    )
    auto_recover: bool = option(
        False,
        "where training fails (bad batches in a row, loss scale, divergence) go back to the last good "
        "average and continue with a lower learning rate",
    )
    recover_lr_factor: float = option(
        0.7, "factor on the learning rate after each return of --auto-recover", above=0, below=1
    )
    max_recoveries: int = option(3, "how often --auto-recover goes back before it gives up", at_least=0)
    print_diagnostics: bool = option(
        False,
        "no training: statistics of activations, gradients and parameters over a few batches, into "
        "<exp-dir>/diagnostics.txt",
    )
    inf_check: bool = option(
        False, "name the first module whose output, gradient or parameter gradient is not finite; slow"
    )

    def validate(self) -> None:
        """Refuse values that contradict each other.

        Raises:
          UserError: naming the options.
        """
        if self.use_fp16 and self.use_bf16:
            raise UserError("--use-fp16 and --use-bf16 exclude each other: give one of them")
        if self.compile and (self.activation_checkpointing != "none" or self.inf_check):
            other = "--inf-check 1" if self.inf_check else "--activation-checkpointing"
            raise UserError(f"--compile 1 and {other} exclude each other: give one of them")
        if self.shard != "none" and (self.print_diagnostics or self.inf_check):
            other = "--print-diagnostics 1" if self.print_diagnostics else "--inf-check 1"
            raise UserError(f"{other} looks at whole weights: leave it out, or --shard {self.shard}")
        if self.save_every_n < self.average_period:
            raise UserError(
                f"--save-every-n {self.save_every_n} must not be less than "
                f"--average-period {self.average_period}"
            )


def fit_lengths(params: Dict[str, Any], given: Collection[str]) -> None:
    """Let defaults follow what the user gave: ``--max-steps`` alone trains that long, and
    ``--save-every-n`` alone does not contradict the default of ``--average-period``.

    Args:
      params: all options by name; changed.
      given: names of those on the command line.
    """
    if "max_steps" in given and "num_epochs" not in given:
        params["num_epochs"] = max(params["num_epochs"], params["max_steps"])  # an epoch has a step at least
    if "save_every_n" in given and "average_period" not in given:
        params["average_period"] = min(params["average_period"], params["save_every_n"])


@dataclass
class SpeechOptions:
    """Speech recognition: tokens, and measurements and checks besides the loss."""

    bpe_model: str = option(
        "data/lang_bpe_500/bpe.model",
        "tokenizer: a SentencePiece model, or a folder with bpe.model",
        path=PathKind.EITHER,
    )
    ref_duration: float = option(
        600.0,
        "seconds of audio in a reference batch, the unit of the counter behind dropout and other "
        "schedules; 0: the counter is that of batches, whatever their size",
        at_least=0,
    )
    allow_unk: bool = option(
        False, "leave out training cuts with characters that the tokens lack, instead of refusing to train"
    )
    valid_wer_interval: int = option(
        1, "epochs between two word error rates of a greedy search on validation cuts; 0: none", at_least=0
    )
    valid_wer_cuts: int = option(100, "how many validation cuts, at most, are decoded for it", at_least=1)
    scan_for_oom: Optional[bool] = option(
        None, "try the largest batches before training; left out: on GPUs alone"
    )
