"""Adam and AdamW with decay for chosen parameters, states by name, and options that a resumed run
may change.
"""

import functools
import logging
import re
from typing import Any, Dict, List

import torch
from torch import nn

from asr_core.training.optim.scaled_adam import get_parameter_groups_with_lrs
from asr_core.training.optimizer_options import OptimizerOptions


class _ByName(torch.optim.Optimizer):
    """An optimizer whose groups have ``names``, in the order of their ``params``."""

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load the moments of each parameter by its name.

        All options of the groups, rates among them, stay this optimizer's.

        Raises:
          ValueError: the state belongs to other parameters.
        """
        saved = {
            n: state_dict["state"].get(i)
            for g in state_dict["param_groups"]
            for n, i in zip(g["names"], g["params"])
        }
        groups = self.state_dict()["param_groups"]
        index = {n: i for g in groups for n, i in zip(g["names"], g["params"])}
        if saved.keys() != index.keys():
            raise ValueError(f"only one of the optimizers has {sorted(saved.keys() ^ index.keys())[0]}")
        super().load_state_dict(
            {"state": {index[n]: s for n, s in saved.items() if s is not None}, "param_groups": groups}
        )


class Adam(_ByName, torch.optim.Adam):
    """Adam (Kingma and Ba 2015); ``weight_decay`` times the weights is added to the gradient."""


class AdamW(_ByName, torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019); weights shrink by ``weight_decay`` times the rate."""


def build_adam(model: nn.Module, opts: OptimizerOptions) -> torch.optim.Optimizer:
    """Build Adam or AdamW for all parameters of a model, with torch's fastest implementation for
    its device.

    Args:
      model: modules' ``lr_scale`` multiply the rates, see :func:`get_parameter_groups_with_lrs`.
      opts: the options.
    """
    exempt = re.compile(opts.no_decay_regex)
    decay = opts.l2 if opts.optim == "adam" else opts.weight_decay
    groups: List[Dict[str, Any]] = []
    for group in get_parameter_groups_with_lrs(model, lr=opts.peak_lr(), include_names=True):
        for decayed in (True, False):
            pairs = [(n, p) for n, p in group["named_params"] if (exempt.fullmatch(n) is None) == decayed]
            if pairs:
                names, params = map(list, zip(*pairs))
                groups.append(
                    {
                        "params": params,
                        "names": names,
                        "lr": group["lr"],
                        "weight_decay": decay if decayed else 0.0,
                    }
                )
    _report(groups, opts)
    cls = Adam if opts.optim == "adam" else AdamW
    build = functools.partial(cls, groups, lr=opts.peak_lr(), betas=opts.betas(), eps=opts.adam_eps)
    try:
        return build(fused=True)
    except RuntimeError:  # an older torch, or a device for which it has no such kernel
        return build(foreach=True)


def _report(groups: List[Dict[str, Any]], opts: OptimizerOptions) -> None:
    """Log which parameters decay."""
    option = f"--l2 {opts.l2:g}" if opts.optim == "adam" else f"--weight-decay {opts.weight_decay:g}"
    if not any(g["weight_decay"] for g in groups):
        logging.info("%s: without decay of the weights", opts.optim)
        return
    counts = [(g["weight_decay"] > 0, len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups]
    logging.info(
        "%s: %s holds for %d of %d parameters (%d of %d values)",
        opts.optim, option, sum(n for on, n, _ in counts if on), sum(n for _, n, _ in counts),
        sum(v for on, _, v in counts if on), sum(v for _, _, v in counts),
    )  # fmt: skip
