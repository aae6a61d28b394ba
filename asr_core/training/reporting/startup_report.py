"""What is said before training begins: the data, the model, the room that checkpoints take."""

import logging
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple

from torch import nn

from asr_core.data.filter import UNKNOWN
from asr_core.utils.errors import UserError

_SHOWN = 5  # cuts named in a message


class DataSummary(NamedTuple):
    """What a training set holds, for data modules without a survey of their own: utterances, and seconds (or what counts as such)."""

    utterances: int
    seconds: float


def report_data(
    data: Any, train_cuts: Any, valid_sets: Mapping[str, Any], tokens: str, allow_unk: bool
) -> Any:
    """Log what the sets hold and what was dropped of them and why; returns the training set's survey.

    Args:
      data: the data module.
      train_cuts, valid_sets: training cuts; validation cuts by name.
      tokens: where the tokenizer is from, for messages.
      allow_unk: leave out training cuts that the tokens cannot spell.

    Raises:
      UserError: there are such cuts and they may not be left out, or no training cut can be used.
    """
    summary = _report_set("Training data", data, train_cuts, train=True)
    if not allow_unk:
        _refuse_unknown(data.dropped.ids, tokens)
    if not summary.utterances:
        raise UserError(f"no training cut can be used; dropped: {data.dropped}")
    for name, cuts in valid_sets.items():
        _report_set(f"Validation data {name}".strip(), data, cuts, train=False)
    data.dropped.mark_reported()
    return summary


def _report_set(what: str, data: Any, cuts: Any, train: bool) -> Any:
    before = data.dropped.counts()
    survey = data.survey(cuts, train=train)
    new = {reason: ids[before.get(reason, 0) :] for reason, ids in data.dropped.ids.items()}
    dropped = "; ".join(f"{len(ids)} x {reason} ({_named(ids)})" for reason, ids in new.items() if ids)
    rates = ""
    if survey.utterances:
        n, seconds = survey.utterances, survey.seconds
        rates = f", {seconds / n:.1f} s each, {survey.tokens / seconds:.1f} tokens per second, {survey.tokens / n:.1f} per utterance"
    logging.info(
        "%s: %.2f hours in %d utterances%s; dropped: %s",
        what,
        survey.seconds / 3600,
        survey.utterances,
        rates,
        dropped or "none",
    )
    return survey


def _refuse_unknown(dropped: Mapping[str, List[str]], tokens: str) -> None:
    found: Dict[str, List[str]] = {}
    for reason, ids in dropped.items():
        if reason.startswith(UNKNOWN):
            found[reason[len(UNKNOWN) :].strip(": ")] = ids
    if found:
        worst = sorted(found.items(), key=lambda entry: -len(entry[1]))[:_SHOWN]
        shown = "; ".join(f"{characters!r} in {_named(ids)}" for characters, ids in worst) + (
            "; ..." if len(found) > _SHOWN else ""
        )
        raise UserError(
            f"{sum(map(len, found.values()))} training cuts would give <unk>, as the tokens of {tokens} lack some of their characters: "
            f"{shown}. Correct the text, or train a tokenizer with these characters, or give --allow-unk 1 to leave the cuts out"
        )


def _named(ids: List[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (f", ... ({len(ids)} cuts)" if len(ids) > _SHOWN else "")


def report_model(model: nn.Module) -> None:
    """Log the number of parameters of each part."""
    parts = [(name, sum(p.numel() for p in part.parameters())) for name, part in model.named_children()]
    shown = "; ".join(f"{name} {n:,}" for name, n in parts if n)
    logging.info(
        "Number of model parameters: %s (%s)", f"{sum(p.numel() for p in model.parameters()):,}", shown
    )


def report_disk(
    model: nn.Module, exp_dir: Path, num_epochs: int, keep_last_k: int, averages: int = 1
) -> None:
    """Log, and warn if it is too little, the disk space that checkpoints will take beside those that are there.

    Each holds the weights, two moments of them, and their ``averages`` in float64. There will be one for each epoch, ``keep_last_k`` of
    single batches, the two best (which are links to epochs, or copies where the disk knows no links), and one more while it is written.
    """
    each = sum(p.numel() * (3 * p.element_size() + 8 * averages) for p in model.parameters())
    there = len([p for kind in ("epoch", "checkpoint") for p in exp_dir.glob(f"{kind}-*.pt")])
    need = each * max(1, num_epochs + keep_last_k + 3 - there)
    free = shutil.disk_usage(exp_dir).free
    line = (
        f"checkpoints take about {each / 1e6:.1f} MB each, at most {need / 1e9:.2f} GB more for {num_epochs} epochs, the last "
        f"{keep_last_k} of batches and the best; {free / 1e9:.2f} GB are free in {exp_dir}"
    )
    if need > free:
        logging.warning("%s: a smaller --keep-last-k helps", line)
    else:
        logging.info(line)
