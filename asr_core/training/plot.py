"""A picture of the losses, for those who have no TensorBoard at hand."""

from pathlib import Path

from asr_core.training.metrics import read_metrics
from asr_core.utils.files import atomic_path


def plot_losses(exp_dir: Path) -> bool:
    """Draw training and validation loss of ``metrics.jsonl`` into ``loss.png``; False if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    records = read_metrics(exp_dir / "metrics.jsonl")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="batch", ylabel="loss per frame", yscale="log")
    for kind, key, label, style in (("train", "tot_loss", "training, averaged", "-"), ("valid", "loss", "validation", "o-")):
        points = [(r["batch_idx_train"], r[key]) for r in records if r["type"] == kind and (r.get(key) or 0) > 0]
        if points:
            axes.plot(*zip(*points), style, label=label)
    if axes.lines:
        axes.legend()
    axes.grid(True, which="both", alpha=0.3)
    with atomic_path(exp_dir / "loss.png") as tmp:
        figure.savefig(tmp, dpi=100)
    return True
