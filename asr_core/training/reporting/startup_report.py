"""Report at the start of training: the data, the model, the disk space of checkpoints."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, List, Mapping, Tuple

from torch import nn

from asr_core.data.filter import RESERVED, UNKNOWN
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from asr_core.data.module import AsrDataModule, Survey

_SHOWN = 5  # cuts named in a message


def report_data(
    data: "AsrDataModule",
    train_cuts: object,
    valid_sets: Mapping[str, object],
    tokens: str,
    allow_unk: bool,
) -> "Survey":
    """Log the contents of the sets, and which cuts were dropped and why.

    Args:
      data: the data module.
      train_cuts: training cuts.
      valid_sets: validation cuts by name.
      tokens: where the tokenizer is from, for messages.
      allow_unk: whether training cuts that the tokens cannot spell may be left out.

    Returns:
      The survey of the training set.

    Raises:
      UserError: there are such cuts and they may not be left out, or no training cut can be used.
    """
    summary = _report_set("Training data", data, train_cuts, train=True)
    if not allow_unk:
        _refuse_unknown(data.dropped.ids, tokens)
    if not summary.utterances:
        raise UserError(f"no training cut can be used; dropped: {data.dropped}")
    for name, cuts in valid_sets.items():
        what = f"Validation data {name}".strip()
        if not _report_set(what, data, cuts, train=False).utterances:
            raise UserError(f"{what}: no cut can be used; dropped: {data.dropped}")
    data.dropped.mark_reported()
    return summary


def _report_set(what: str, data: "AsrDataModule", cuts: object, train: bool) -> "Survey":
    before = data.dropped.counts()
    survey = data.survey(cuts, train=train)
    new = {reason: ids[before.get(reason, 0) :] for reason, ids in data.dropped.ids.items()}
    dropped = "; ".join(f"{len(ids)} x {reason} ({_first_ids(ids)})" for reason, ids in new.items() if ids)
    rates = ""
    if survey.utterances:
        n, seconds, tokens = survey.utterances, survey.seconds, survey.tokens
        rates = (
            f", {seconds / n:.1f} s each, {tokens / seconds:.1f} tokens per second, "
            f"{tokens / n:.1f} per utterance"
        )
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
    """Raise a UserError if cuts were dropped because the tokens cannot spell their text.

    Such cuts would train the model to emit <unk>, which is rarely wanted and easily overlooked.
    """
    number, shown = _named(dropped, RESERVED)
    if number:
        raise UserError(
            f"{number} training cuts have symbols of the tokens in their text: {shown}. Write them "
            "in another way, or give --allow-unk 1 to leave the cuts out"
        )
    number, shown = _named(dropped, UNKNOWN)
    if number:
        raise UserError(
            f"{number} training cuts would give <unk>, as the tokens of {tokens} lack "
            f"some of their characters: {shown}. Correct the text, or train a tokenizer with these "
            "characters, or give --allow-unk 1 to leave the cuts out"
        )


def _named(dropped: Mapping[str, List[str]], kind: str) -> Tuple[int, str]:
    """Return how many cuts were dropped for reasons of a kind, and what was found in which."""
    found = {
        reason[len(kind) :].strip(": "): ids for reason, ids in dropped.items() if reason.startswith(kind)
    }
    worst = sorted(found.items(), key=lambda entry: -len(entry[1]))[:_SHOWN]
    shown = "; ".join(f"{what!r} in {_first_ids(ids)}" for what, ids in worst)
    return sum(map(len, found.values())), shown + ("; ..." if len(found) > _SHOWN else "")


def _first_ids(ids: List[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (f", ... ({len(ids)} cuts)" if len(ids) > _SHOWN else "")


def report_model(model: nn.Module) -> None:
    """Log the number of parameters of the model and of each of its parts."""
    parts = [(name, sum(p.numel() for p in part.parameters())) for name, part in model.named_children()]
    shown = "; ".join(f"{name} {n:,}" for name, n in parts if n)
    total = sum(p.numel() for p in model.parameters())
    logging.info("Number of model parameters: %s (%s)", f"{total:,}", shown)


def report_disk(
    model: nn.Module, exp_dir: Path, num_epochs: int, keep_last_k: int, averages: int = 1
) -> None:
    """Log the disk space that further checkpoints will take; warn if there is too little.

    Each checkpoint holds the weights, two moments of them, and their averages in float64. There
    will be one per epoch, ``keep_last_k`` of single batches, the two best (links to those of
    epochs, or copies on disks without links), and one more while it is written.

    Args:
      model: the model.
      exp_dir: folder of the run.
      num_epochs: last epoch; 0: not known.
      keep_last_k: number of checkpoints of single batches that are kept.
      averages: number of averages of the weights.
    """
    each = sum(p.numel() * (3 * p.element_size() + 8 * averages) for p in model.parameters())
    present = len([p for kind in ("epoch", "checkpoint") for p in exp_dir.glob(f"{kind}-*.pt")])
    need = each * max(1, max(1, num_epochs) + keep_last_k + 3 - present)
    free = shutil.disk_usage(exp_dir).free
    epochs = f"{num_epochs} epochs" if num_epochs else "one epoch (there may be more)"
    line = (
        f"checkpoints take about {each / 1e6:.1f} MB each, at most {need / 1e9:.2f} GB more for {epochs}, "
        f"the last {keep_last_k} of batches and the best; {free / 1e9:.2f} GB are free in {exp_dir}"
    )
    if need > free:
        logging.warning("%s: a smaller --keep-last-k helps", line)
    else:
        logging.info(line)
