"""Options that select the checkpoints of a run; light, so that ``--help`` needs no torch."""

from dataclasses import dataclass

from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option

DEFAULT_EPOCH, DEFAULT_AVG = 30, 15


@dataclass
class CheckpointOptions:
    """Checkpoint: whose weights."""

    epoch: int = option(DEFAULT_EPOCH, "use epoch-<epoch>.pt; counts from 1", at_least=0)
    iter: int = option(0, "if positive, use checkpoint-<iter>.pt instead of an epoch's", at_least=0)
    avg: int = option(
        DEFAULT_AVG,
        "number of checkpoints to average; with --use-averaged-model the span of epochs averaged over",
        at_least=1,
    )
    use_averaged_model: bool = option(
        True,
        "average over all steps between the first and the last checkpoint, from the running "
        "averages they hold",
    )
    use_ema: bool = option(
        False,
        "the exponential average of training's --ema-decay instead of the weights; with --avg "
        "above 1, the mean of several checkpoints'",
        presets={True: {"use_ema": True, "use_averaged_model": False, "avg": 1}},
    )
    exp_dir: str = option(
        "zipformer/exp", "folder of the checkpoints; results go there too", path=PathKind.PLACE
    )

    @property
    def stem(self) -> str:
        """``epoch-E`` or ``iter-I``: how names of averaged checkpoints and result files begin."""
        return f"iter-{self.iter}" if self.iter > 0 else f"epoch-{self.epoch}"
