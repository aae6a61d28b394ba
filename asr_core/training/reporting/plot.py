"""A picture of losses and word error rates, for those who have no TensorBoard at hand."""

from pathlib import Path

from asr_core.training.reporting.writers import read_metrics
from asr_core.utils.files import atomic_path


def plot_losses(exp_dir: Path) -> bool:
    """Draw what ``metrics.jsonl`` has into ``loss.png``; False if matplotlib is not installed.

    Training and validation loss on the left axis; word error rates, where there are any, on the right one; returns to an earlier
    state as vertical lines.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    records = read_metrics(exp_dir / "metrics.jsonl")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="batch", ylabel="loss per frame", yscale="log")
    lines = []
    for kind, key, label, style in (
        ("train", "tot_loss", "training, averaged", "-"),
        ("valid", "loss", "validation", "o-"),
    ):
        points = [
            (r["batch_idx_train"], r[key]) for r in records if r["type"] == kind and (r.get(key) or 0) > 0
        ]
        if points:
            lines += axes.plot(*zip(*points), style, label=label)
    rates = [(r["batch_idx_train"], r["wer"]) for r in records if r["type"] == "wer"]
    if rates:
        right = axes.twinx()
        right.set_ylabel("word errors, %, greedy search")
        lines += right.plot(*zip(*rates), "s--", color="tab:green", label="word errors")
        right.set_ylim(bottom=0)
    for record in records:
        if record["type"] == "recovery":
            axes.axvline(record["batch_idx_train"], color="tab:red", linestyle=":")
    if lines:
        axes.legend(handles=lines)
    axes.grid(True, which="both", alpha=0.3)
    with atomic_path(exp_dir / "loss.png") as tmp:
        figure.savefig(tmp, dpi=100)
    return True
