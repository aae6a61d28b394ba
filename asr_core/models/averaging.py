"""Selection and averaging of a run's checkpoints."""

import itertools
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

_NUMBERED = re.compile(r"(epoch|checkpoint)-(\d+)\.pt$")


def numbered(exp_dir: Path, kind: str) -> List[Tuple[int, Path]]:
    """List files ``<kind>-<N>.pt``, highest N first; ``kind`` is epoch or checkpoint."""
    return sorted(
        ((int(m[2]), p) for p in exp_dir.glob(f"{kind}-*.pt") if (m := _NUMBERED.match(p.name))), reverse=True
    )


def find_checkpoints(exp_dir: PathLike, iteration: int = 0) -> List[Path]:
    """List the ``checkpoint-<N>.pt`` of a folder, highest N first.

    Args:
      exp_dir: the folder.
      iteration: 0 for all; if positive, those with N at least this; if negative, those with N at
        most its magnitude.
    """
    found = numbered(Path(exp_dir), "checkpoint")
    if iteration > 0:
        found = [(n, p) for n, p in found if n >= iteration]
    elif iteration < 0:
        found = [(n, p) for n, p in found if n <= -iteration]
    return [p for _, p in found]


def select_checkpoints(
    exp_dir: PathLike, *, epoch: int, iter: int, avg: int, use_averaged_model: bool
) -> List[Path]:
    """Return the files to load, newest first.

    Without averaged models they are the ``avg`` newest ``checkpoint-<N>.pt`` with N <= iter or,
    when ``iter`` is 0, those of epochs ``epoch - avg + 1`` to ``epoch``. With averaged models they
    are two: the end of the range that is averaged, and the one before its start.

    Raises:
      UserError: some of them do not exist.
    """
    exp_dir = Path(exp_dir)
    if avg < 1:
        raise UserError(f"--avg must be at least 1, got {avg}")
    if iter > 0:
        needed = avg + 1 if use_averaged_model else avg
        found = find_checkpoints(exp_dir, -iter)[:needed]
        if not found:
            raise UserError(f"no checkpoints found in {exp_dir} with a number of at most {iter}")
        if len(found) < needed:
            have = ", ".join(p.name for p in found)
            raise UserError(
                f"not enough checkpoints: --iter {iter} --avg {avg} needs {needed}, {exp_dir} has {have}"
            )
        return [found[0], found[-1]] if use_averaged_model else found
    if use_averaged_model:
        if epoch - avg < 1:
            raise UserError(_too_many_epochs(exp_dir, epoch, avg))
        paths = [exp_dir / f"epoch-{epoch}.pt", exp_dir / f"epoch-{epoch - avg}.pt"]
    else:
        paths = [exp_dir / f"epoch-{e}.pt" for e in range(epoch, max(0, epoch - avg), -1)]
    missing = [p for p in paths if not p.is_file()]
    if missing or not paths:
        which = missing[0] if missing else exp_dir / f"epoch-{epoch}.pt"
        raise UserError(f"no checkpoint {which}; the folder has {_listed(exp_dir)}")
    return paths


def _too_many_epochs(exp_dir: Path, epoch: int, avg: int) -> str:
    """Say that there are fewer epochs before ``epoch`` than ``avg``, and what can be averaged."""
    found = numbered(exp_dir, "epoch")
    last = found[0][0] if found else 0
    have = f"{exp_dir} has {last} {'epoch' if last == 1 else 'epochs'}"
    most = min(epoch, last)
    span = f"give --avg {most - 1}" if most == 2 else f"give at most --avg {most - 1}"
    if most < 2:
        span = f"give --epoch {most} --avg 1 --use-averaged-model 0" if most else "train first"
    return f"--epoch {epoch} --avg {avg} averages over more epochs than there are: {have}; {span}"


def _listed(exp_dir: Path) -> str:
    """List the checkpoints of a folder, long sequences by their first and last number."""
    words, others = [], {p.name for p in exp_dir.glob("*.pt")}
    for kind in ("epoch", "checkpoint"):
        names = [path.name for _, path in reversed(numbered(exp_dir, kind))]
        words += names if len(names) < 4 else [f"{names[0]} ... {names[-1]} ({len(names)} files)"]
        others -= set(names)
    words += sorted(others)
    return ", ".join(words) or "none"


def average_state_dicts(states: Sequence[Mapping[str, Tensor]]) -> Dict[str, Tensor]:
    """Return the mean of state dicts, summed in float64; integers are divided rounding down.

    Raises:
      UserError: they hold different parameters.
    """
    total = {
        k: v.to(torch.float64, copy=True) if v.is_floating_point() else v.clone()
        for k, v in states[0].items()
    }
    for state in states[1:]:
        _refuse_other_parameters(total, state)
        for name, value in total.items():
            value += state[name]
    count = len(states)
    out = {}
    for name, value in total.items():
        out[name] = (value / count).to(states[0][name].dtype) if value.is_floating_point() else value // count
    return out


def _refuse_other_parameters(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Refuse state dicts of different models."""
    if one.keys() != other.keys():
        name = next(iter(one.keys() ^ other.keys()))
        raise UserError(f"the checkpoints are of different models: only some have {name}")
    for name, value in one.items():
        if value.shape != other[name].shape:
            shapes = f"{tuple(value.shape)} and {tuple(other[name].shape)}"
            raise UserError(f"the checkpoints are of different models: {name} has shapes {shapes}")


def refuse_other_tokens(checkpoints: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> None:
    """Refuse to average models of different tokens, where their checkpoints record these.

    Args:
      checkpoints: the checkpoints.
      paths: their files, for messages.

    Raises:
      UserError: naming the first token that differs.
    """
    recorded = [(path.name, ckpt["pieces"]) for ckpt, path in zip(checkpoints, paths) if ckpt.get("pieces")]
    for name, pieces in recorded[1:]:
        first, expected = recorded[0]
        for i, (one, two) in enumerate(itertools.zip_longest(expected, pieces)):
            if one != two:
                raise UserError(
                    f"the checkpoints are of different tokenizers: token {i} is {one!r} in {first} and "
                    f"{two!r} in {name}"
                )


def first_not_finite(weights: Mapping[str, object]) -> str:
    """Return the name of the first entry with a number that is not finite, or an empty string."""
    for name, value in weights.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            continue  # a tensor on the meta device has a shape alone
        if not bool(torch.isfinite(value).all()):
            return name
    return ""


def ema_of(ckpt: Mapping[str, Any]) -> Dict[str, Tensor]:
    """Return the exponential average of a checkpoint's weights, with their dtypes.

    Raises:
      UserError: it holds none.
    """
    average = ckpt.get("model_ema")
    if average is None:
        raise UserError(
            "it holds no exponential average (model_ema): train with --ema-decay, or leave out --use-ema"
        )
    return {name: value.to(ckpt["model"][name].dtype) for name, value in average.items()}


def average_of_range(start: Mapping[str, Any], end: Mapping[str, Any]) -> Dict[str, Tensor]:
    """Return the mean of a run's weights between two checkpoints, from their running averages.

    With the average over all snapshots up to step e (every p steps), A_e, and likewise A_s:
    ``(A_e * e - A_s * s) / (e - s)`` is the mean over the snapshots in (s, e].

    Args:
      start, end: checkpoints with ``model_avg``, ``average_period``, ``batch_idx_train``.

    Returns:
      A float32 state dict.

    Raises:
      UserError: they hold no running average, or no snapshot lies between them.
    """
    for ckpt in (start, end):
        if ckpt.get("model_avg") is None:
            raise UserError(
                "the checkpoint holds no running average (model_avg): give --use-averaged-model 0"
            )
    (first, begin), (last, finish) = _snapshot(start), _snapshot(end)
    if first != last or finish <= begin:
        raise UserError(
            "no snapshot lies between the checkpoints of batches"
            f" {start['batch_idx_train']} and {end['batch_idx_train']}"
        )
    weight = finish / (finish - begin)
    averages, earlier = end["model_avg"], start["model_avg"]
    _refuse_other_parameters(averages, earlier)
    out = {}
    for name, value in averages.items():
        if value.is_floating_point():
            out[name] = (value.double() * weight + earlier[name].double() * (1.0 - weight)).float()
        else:
            out[name] = value
    return out


def _snapshot(ckpt: Mapping[str, Any]) -> Tuple[int, int]:
    """Return (average period, batch of the last snapshot)."""
    period = int(ckpt["average_period"])
    return period, int(ckpt["batch_idx_train"]) // period * period
