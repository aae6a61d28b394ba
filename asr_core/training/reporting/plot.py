"""A picture of losses and word error rates, for those without TensorBoard."""

from pathlib import Path
from typing import Any, List, Mapping, Sequence

from asr_core.training.reporting.writers import read_metrics
from asr_core.utils.files import atomic_path


def plot_losses(exp_dir: Path) -> bool:
    """Draw the records of ``metrics.jsonl`` into ``loss.png``.

    Training and validation loss belong to the left axis, word error rates, if there are any, to the
    right one; vertical lines mark recoveries.

    Returns:
      False if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    records = [record for record in read_metrics(exp_dir / "metrics.jsonl") if "type" in record]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="batch", ylabel="loss per frame", yscale="log")
    lines = []
    for kind, key, label, style in (
        ("train", "tot_loss", "training, averaged", "-"),
        ("valid", "loss", "validation", "o-"),
    ):
        # A logarithmic axis cannot show zero, nor a loss that was not finite.
        shown = [r for r in records if r["type"] == kind and (r.get(key) or 0) > 0]
        if shown:
            lines += axes.plot(_steps(shown), [r[key] for r in shown], style, label=label)
    rates = [r for r in records if r["type"] == "wer"]
    if rates:
        right = axes.twinx()
        right.set_ylabel("word errors, %, greedy search")
        values = [r["wer"] for r in rates]
        lines += right.plot(_steps(rates), values, "s--", color="tab:green", label="word errors")
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


def _steps(records: Sequence[Mapping[str, Any]]) -> List[int]:
    return [record["batch_idx_train"] for record in records]
