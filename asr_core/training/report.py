"""What is said before training begins: the data, the model, the room that checkpoints take."""

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn


class DataSummary(NamedTuple):
    """Usable cuts of a set: how many, and their seconds of audio."""

    utterances: int
    seconds: float


def report_data(what: str, summary: DataSummary, dropped: Any = None) -> None:
    """Log hours and utterances, and what was dropped and why."""
    logging.info("%s: %.2f hours in %d utterances; dropped: %s", what, summary.seconds / 3600, summary.utterances, dropped or "none")


def report_model(model: nn.Module) -> None:
    """Log the number of parameters of each part."""
    parts = [(name, sum(p.numel() for p in part.parameters())) for name, part in model.named_children()]
    shown = "; ".join(f"{name} {n:,}" for name, n in parts if n)
    logging.info("Number of model parameters: %s (%s)", f"{sum(p.numel() for p in model.parameters()):,}", shown)


def report_disk(model: nn.Module, exp_dir: Path, num_epochs: int, keep_last_k: int) -> None:
    """Log, and warn if it is too little, the disk space that checkpoints will take: weights, two moments, a float64 average."""
    each = sum(p.numel() * (3 * p.element_size() + 8) for p in model.parameters())
    need = each * (num_epochs + keep_last_k + 1)
    free = shutil.disk_usage(exp_dir).free
    line = f"checkpoints take about {each / 1e6:.1f} MB each, at most {need / 1e9:.2f} GB in all; {free / 1e9:.2f} GB are free in {exp_dir}"
    if need > free:
        logging.warning("%s: a smaller --keep-last-k helps", line)
    else:
        logging.info(line)
