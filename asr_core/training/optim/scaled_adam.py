"""ScaledAdam: Adam whose step is proportional to each parameter's size (Yao et al. 2023, section
3.5 and appendix A.1).
"""

import logging
import math
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from asr_core.training.optim.shards import Shards
from asr_core.training.optim.stacked_parameters import ParameterGroup, StepSizes, Sums

NamedParams = List[Tuple[str, nn.Parameter]]
# The input of an optimizer: parameters, (name, parameter) pairs, or groups of either.
Params = Iterable[Union[Tensor, Tuple[str, Tensor], Dict[str, Any]]]

# Relative change of a parameter's size by one update, at most: the estimate of the squared gradient
# is poor in the first updates.
_MAX_SIZE_STEP = 0.1
# The correction 1 - beta2^n of the squared gradient's average is left out from here on: its root
# changes steps by 0.5 % at most.
_FULL_CORRECTION = 0.99
# A step whose gradients were scaled down by more than this is reported with the parameters that
# caused it.
_REPORTED_CLIPPING = 0.5


class _Norm(NamedTuple):
    """The norm of a group's gradients.

    Attributes:
      value: the norm, of gradients times the sizes of their parameters; a scalar.
      shares: (N,), the parts of its square that the parameters contribute.
    """

    value: Tensor
    shares: Tensor


class _Outcome(NamedTuple):
    """What a step came to, by group; the device may still be at work on it.

    Attributes:
      norms: norms of the gradients.
      factors: their factors, float64 scalars.
    """

    norms: List[_Norm]
    factors: List[Tensor]


class ScaledAdam(torch.optim.Optimizer):
    """Adam with steps relative to the rms of each parameter, a learned change of that rms, and
    clipping by the median norm.

    Adam moves every element by about the learning rate, whatever its size, so large parameters
    learn slowly and small ones fast. Here the step is multiplied by the parameter's rms: relative
    changes are alike. That step hardly changes the rms itself, which is why a second Adam, on the
    logarithm of the size, learns it.

    Parameters of equal dtype and shape are updated together. The state's layout is icefall's: only
    the first parameter of each (dtype, shape) has an entry, whose tensors are stacked on a new axis
    0, so its training runs can be continued.

    Args:
      params: parameters, (name, parameter) pairs, or groups with the key ``params`` or
        ``named_params``.
      lr: learning rate, relative to a parameter's rms: 0.03 changes a parameter by at most 3 % in a
        step. That is some ten times what Adam's rate would be, since an rms is usually well below
        1.
      clipping_scale: clip the gradient norm at this multiple of its recent median; None: never. A
        fixed limit would have to change with the model, the loss and the progress of training; the
        median follows them.
      betas: decay of momentum and of the squared gradient's average. 0.98 averages over some 50
        steps: steps are relative, so gradients change their size more quickly than under Adam's
        0.999.
      scalar_lr_scale: factor on ``lr`` for scalars and for the change of a parameter's overall
        size. A scalar has no rms to be relative to; and both act on a whole module at once, so they
        should change more slowly than single weights.
      eps: added to denominators.
      param_min_rms: parameters with a smaller rms are treated as if it were this one, so that one
        that starts at zero can grow.
      param_max_rms: parameters do not grow beyond this rms: larger weights would only saturate
        what follows.
      scalar_max: scalars stay within plus/minus this: most are logarithms of scales, and e^10 is
        near float16's limit.
      size_update_period: the size of a parameter is changed once in this many steps, which saves
        time; its gradients are summed meanwhile.
      clipping_update_period: steps over which the median norm is taken.

    Attributes:
      shards: which part of the parameters this optimizer has. It does what one with all of them
        would do; sums over a parameter's elements are then those of all processes.

    On a GPU with kernels a step waits for nothing: whether its gradients are finite and how far
    they are clipped is found, and heeded, on the device. The host learns of it when it asks for
    ``skipped`` or ``grad_norm``, or at the next step.
    """

    # GradScaler need not wait either: a step whose gradients are not finite changes nothing.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Params,
        lr: float = 3e-02,
        clipping_scale: Optional[float] = None,
        betas: Tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1.0e-08,
        param_min_rms: float = 1.0e-05,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ) -> None:
        defaults = dict(
            lr=lr,
            clipping_scale=clipping_scale,
            betas=betas,
            scalar_lr_scale=scalar_lr_scale,
            eps=eps,
            param_min_rms=param_min_rms,
            param_max_rms=param_max_rms,
            scalar_max=scalar_max,
            size_update_period=size_update_period,
            clipping_update_period=clipping_update_period,
        )
        groups, self._names = _named_groups(params)
        super().__init__(groups, defaults)
        self.shards = Shards()
        self._groups: Optional[List[ParameterGroup]] = None
        self._outcome: Optional[_Outcome] = None  # of the last step, unless it was looked at
        self._skipped = False
        self._grad_norm = 0.0

    @property
    def skipped(self) -> bool:
        """Whether the last step changed nothing because the gradient norm was not finite."""
        self._settle()
        return self._skipped

    @property
    def grad_norm(self) -> float:
        """Norm of the last step's gradients times the sizes of their parameters."""
        self._settle()
        return self._grad_norm

    def state_dict(self) -> Dict[str, Any]:
        """Return the state after the last step."""
        self._settle()
        return super().state_dict()

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load a state.

        ``base_lr`` of this optimizer's groups is kept, so that a resumed run may change it.
        """
        self._settle()
        base_lrs = [group.get("base_lr") for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, base_lr in zip(self.param_groups, base_lrs):
            if base_lr is not None:
                group["base_lr"] = base_lr
        self._groups = None

    @torch.no_grad()
    def scale_momenta(self, factor: float) -> None:
        """Multiply the momenta, which contain the learning rate of their time."""
        for state in self.state.values():
            if "delta" in state:
                state["delta"].mul_(factor)

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], float]] = None) -> Optional[float]:  # type: ignore[override]  # torch overloads it
        """Update every parameter from its ``grad`` (a missing one counts as zero)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._settle()
        groups = self._built_groups()
        sums = [group.passes.sums() for group in groups]
        scale = getattr(self, "grad_scale", None)  # GradScaler's, if nobody has removed it yet
        norms = [_norm(group, s, scale) for group, s in zip(groups, sums)]
        good = torch.stack([norm.value for norm in norms]).isfinite().all()
        factors = [group.clipper.factor(norm.value, good) for group, norm in zip(groups, norms)]
        gated = all(group.passes.gated for group in groups)
        if gated or bool(good):
            for group, s, factor in zip(groups, sums, factors):
                _step_group(group, s, factor if scale is None else factor / scale, good)
        self._outcome = _Outcome(norms, factors)
        if not gated:
            self._settle()
        return loss

    def _built_groups(self) -> List[ParameterGroup]:
        if self._groups is None:
            self._groups = [
                ParameterGroup(g, g["params"], names, self.state, self.shards)
                for g, names in zip(self.param_groups, self._names)
                if g["params"]
            ]
        return self._groups

    def _settle(self) -> None:
        """Wait for the last step, and bring counters and messages up to date."""
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            return
        parts = [norm.value.double() for norm in outcome.norms] + outcome.factors
        numbers = torch.stack(parts).tolist()  # one copy
        norms, factors = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
        self._grad_norm = math.hypot(*norms)
        self._skipped = not all(map(math.isfinite, norms))
        for group, norm, value, factor in zip(self._built_groups(), outcome.norms, norms, factors):
            group.clipper.settle(not self._skipped, factor)
            if self._skipped:
                continue
            if factor < _REPORTED_CLIPPING:
                _report_clipping(group, norm.shares, value, factor)
            for state in group.states:
                state["step"] += 1


def _norm(group: ParameterGroup, sums: Sums, scale: Optional[Tensor]) -> _Norm:
    """Return the norm of the gradients of a group, times the sizes of their parameters.

    The gradients are ``scale`` times too large.
    """
    size = torch.where(group.scalar, group.options["scalar_lr_scale"], group.rms)
    sumsq = sums.gg * size**2  # (N,)
    total = sumsq.sum()
    norm = total.sqrt()
    return _Norm(norm if scale is None else norm / scale, sumsq / total)


def _report_clipping(group: ParameterGroup, shares: Tensor, norm: float, factor: float) -> None:
    """Log that gradients were clipped by much, and the parameters that caused it."""
    share, order = shares.sort(descending=True)
    worst = [f"{group.names[int(i)]} ({100 * float(s):.0f}%)" for s, i in zip(share[:3], order[:3])]
    logging.warning(
        "gradient norm %.2e clipped by %.3f; the parameters that make most of it: %s",
        norm,
        factor,
        ", ".join(worst),
    )


def _step_group(group: ParameterGroup, sums: Sums, clip: Tensor, good: Tensor) -> None:
    """Update the parameters of a group if the step is good; gradients count ``clip`` times."""
    opts, step = group.options, group.state["step"]
    beta1, beta2 = opts["betas"]
    period = opts["size_update_period"]
    # d loss / d log(size) = sum of p g
    _set_if(good, group.size_grads[step % period], sums.pg * clip)
    resize = step % period == period - 1
    if resize:
        _set_if(good, group.rms, (sums.pp / group.numel).sqrt())
    size = torch.where(group.scalar, opts["scalar_lr_scale"], group.rms.clamp(min=opts["param_min_rms"]))
    growth = _size_step(group, step, good) if resize and step > 0 else torch.zeros_like(group.rms)
    correction = 1 - beta2 ** (step + 1)
    new = 1 - beta1  # weight of this step in the momentum
    group.passes.step(
        StepSizes(
            beta1=beta1,
            beta2=beta2,
            weight=clip.square() * (1 - beta2),
            factor=correction**-0.5 if correction < _FULL_CORRECTION else 1.0,
            eps=opts["eps"],
            rate=size * (clip * -opts["lr"] * new),
            growth=growth * new,
            good=good,
        )
    )
    for stack in group.stacks:
        if stack.is_scalar:
            torch._foreach_clamp_min_(stack.params, -opts["scalar_max"])
            torch._foreach_clamp_max_(stack.params, opts["scalar_max"])


def _set_if(good: Tensor, old: Tensor, new: Tensor) -> None:
    """Replace ``old`` by ``new`` if the scalar ``good`` is true."""
    old.copy_(torch.where(good, new, old))


def _size_step(group: ParameterGroup, step: int, good: Tensor) -> Tensor:
    """Return the relative change of each parameter's size, (N,): Adam on the logarithm of the size.

    0 for scalars.
    """
    opts, rms, grads = group.options, group.rms, group.size_grads
    period = opts["size_update_period"]
    beta = opts["betas"][1] ** period  # the decay of as many steps
    exp_avg_sq = group.size_avg_sq
    _set_if(good, exp_avg_sq, exp_avg_sq * beta + (grads**2).mean(dim=0) * (1 - beta))
    correction = 1 - beta ** ((step + 1) // period)
    lr = opts["lr"] * opts["scalar_lr_scale"]
    change = grads.sum(dim=0) / (exp_avg_sq.sqrt() + opts["eps"]) * (-lr * correction**0.5)
    # a parameter near zero grows by its ordinary steps; a factor on it would do nothing
    change.masked_fill_(rms < opts["param_min_rms"], 0.0).clamp_(-_MAX_SIZE_STEP, _MAX_SIZE_STEP)
    change = torch.minimum(change, (opts["param_max_rms"] - rms) / rms)
    return change.masked_fill_(group.scalar, 0.0)


def _named_groups(params: Params) -> Tuple[List[Dict[str, Any]], List[List[str]]]:
    """Convert parameters, named parameters or groups of them to torch's form.

    Return the names apart.
    """
    items = list(params)
    if not items:
        raise ValueError("ScaledAdam got no parameters")
    given = [dict(item) for item in items if isinstance(item, dict)]
    groups: List[Dict[str, Any]] = []
    names: List[List[str]] = []
    for group in given or [{"params": items}]:
        entries = group.pop("named_params", None) or group.pop("params")
        pairs: NamedParams = [
            e if isinstance(e, tuple) else (f"parameter {i}", e) for i, e in enumerate(entries)
        ]
        groups.append({**group, "params": [p for _, p in pairs]})
        names.append([name for name, _ in pairs])
    return groups, names


def get_parameter_groups_with_lrs(
    model: nn.Module, lr: float, include_names: bool = False, freeze_modules: Iterable[str] = ()
) -> List[Dict[str, Any]]:
    """Group a model's parameters by learning rate.

    The rate of a parameter is ``lr`` times the ``lr_scale`` attributes of all modules that contain
    it.

    Args:
      model: the model.
      lr: base learning rate.
      include_names: give groups with ``named_params`` instead of ``params``.
      freeze_modules: names of top-level modules to leave out.
    """
    frozen = set(freeze_modules)
    scale_of: Dict[str, float] = {}
    for name, module in model.named_modules():
        parent = scale_of.get(name.rpartition(".")[0], 1.0) if name else 1.0
        scale_of[name] = parent * float(getattr(module, "lr_scale", 1.0))
    groups: Dict[float, List[Union[nn.Parameter, Tuple[str, nn.Parameter]]]] = {}
    for name, p in model.named_parameters():
        if name.split(".")[0] in frozen or not p.requires_grad:
            continue
        rate = lr * scale_of[name.rpartition(".")[0]]
        groups.setdefault(rate, []).append((name, p) if include_names else p)
    key = "named_params" if include_names else "params"
    return [{key: members, "lr": rate} for rate, members in groups.items()]
