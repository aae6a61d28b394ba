"""ScaledAdam: Adam whose step is proportional to each parameter's size (Yao et al. 2023, section
3.5 and appendix A.1).
"""

import logging
import math
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from asr_core.training.optim.clipping import GradientClipper
from asr_core.training.optim.stacked_parameters import CpuPasses, Passes, Stack, StepSizes, Sums, TorchPasses

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


class _Group:
    """A parameter group: its stacks, and one value per parameter for what is not per element.

    Attributes:
      options: the group's entry in ``param_groups``.
      names: the N parameters' names, in the order of the stacks.
      state: the state of the first stack, which also holds what the group has once.
      states: the states of the stacks.
      scalar: (N,) bool, parameters of one element.
      numel: (N,), numbers of elements.
      rms: (N,), sizes; the optimizer's state holds views of this and the next two.
      size_grads: (period, N), the last gradients with respect to the logarithms of the sizes.
      size_avg_sq: (N,), average of their squares.
    """

    def __init__(
        self,
        options: Dict[str, Any],
        params: List[Tensor],
        names: List[str],
        states: Mapping[Tensor, Dict[str, Any]],
    ) -> None:
        by_shape: Dict[Tuple, List[int]] = {}
        for i, p in enumerate(params):
            by_shape.setdefault((str(p.dtype), *p.shape), []).append(i)
        order = [by_shape[key] for key in sorted(by_shape)]
        self.options = options
        self.names = [names[i] for members in order for i in members]
        self.state = states[params[order[0][0]]]
        self.states = [states[params[members[0]]] for members in order]
        self.stacks: List[Stack] = []
        for members, state in zip(order, self.states):
            state.setdefault("step", 0)
            first = sum(len(s.params) for s in self.stacks)
            self.stacks.append(Stack([params[i] for i in members], first, state))
        self.passes: Passes = (CpuPasses if CpuPasses.fit(self.stacks) else TorchPasses)(self.stacks)
        counts = [(s.is_scalar, s.params[0].numel()) for s in self.stacks for _ in s.params]
        device = params[0].device
        dtype = torch.float64 if params[0].dtype == torch.float64 else torch.float32
        self.scalar = torch.tensor([is_scalar for is_scalar, _ in counts], device=device)
        self.numel = torch.tensor([n for _, n in counts], dtype=dtype, device=device)
        self.rms, self.size_avg_sq = torch.ones_like(self.numel), torch.zeros_like(self.numel)
        self.size_grads = self.numel.new_zeros(options["size_update_period"], len(counts))
        self._share_state()

    @torch.no_grad()
    def _share_state(self) -> None:
        """Make the state's per-parameter entries views of this group's vectors, which take over
        what was loaded.
        """
        sizes = {"param_rms": self.rms, "scale_exp_avg_sq": self.size_avg_sq, "scale_grads": self.size_grads}
        for stack, state in zip(self.stacks, self.states):
            if stack.is_scalar:
                continue
            if "param_rms" not in state:
                rms = [p.float().square().mean().sqrt() for p in stack.params]
                state["param_rms"] = torch.stack(rms).view(stack.column)
            for name, flat in sizes.items():
                view = stack.part_of(flat)
                if name in state:
                    view.copy_(state[name])
                state[name] = view


class _Norm(NamedTuple):
    """The norm of a group's gradients.

    Attributes:
      value: the norm, of gradients times the sizes of their parameters.
      shares: (N,), the parts of its square that the parameters contribute.
    """

    value: float
    shares: Tensor


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
      skipped: whether the last step changed nothing because the gradient norm was not finite.
      grad_norm: norm of the last step's gradients times the sizes of their parameters.
    """

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
        self._groups: Optional[List[_Group]] = None
        self.skipped = False
        self.grad_norm = 0.0

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load a state.

        ``base_lr`` of this optimizer's groups is kept, so that a resumed run may change it.
        """
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
        if self._groups is None:
            self._groups = [
                _Group(g, g["params"], names, self.state)
                for g, names in zip(self.param_groups, self._names)
                if g["params"]
            ]
        sums = [group.passes.sums() for group in self._groups]
        norms = [_norm(group, s) for group, s in zip(self._groups, sums)]
        self.grad_norm = 0.0
        for norm in norms:
            self.grad_norm = math.hypot(self.grad_norm, norm.value)
        clips = [
            _clipping(group, norm) for group, norm in zip(self._groups, norms) if math.isfinite(norm.value)
        ]
        self.skipped = len(clips) < len(norms)
        if not self.skipped:
            for group, s, clip in zip(self._groups, sums, clips):
                _step_group(group, s, clip)
        return loss


def _norm(group: _Group, sums: Sums) -> _Norm:
    """Return the norm of the gradients of a group, times the sizes of their parameters."""
    size = torch.where(group.scalar, group.options["scalar_lr_scale"], group.rms)
    sumsq = sums.gg * size**2  # (N,)
    total = sumsq.sum()
    return _Norm(float(total.sqrt()), sumsq / total)


def _clipping(group: _Group, norm: _Norm) -> float:
    """Return the factor for the gradients, whose norm is finite."""
    clip = GradientClipper(group.options, group.state).update(norm.value)
    if clip < _REPORTED_CLIPPING:
        share, order = norm.shares.sort(descending=True)
        worst = [f"{group.names[int(i)]} ({100 * float(s):.0f}%)" for s, i in zip(share[:3], order[:3])]
        logging.warning(
            "gradient norm %.2e clipped by %.3f; the parameters that make most of it: %s",
            norm.value,
            clip,
            ", ".join(worst),
        )
    return clip


def _step_group(group: _Group, sums: Sums, clip: float) -> None:
    """Update the parameters of a group, whose gradients count ``clip`` times."""
    opts, step = group.options, group.state["step"]
    beta1, beta2 = opts["betas"]
    period = opts["size_update_period"]
    group.size_grads[step % period] = sums.pg * clip  # d loss / d log(size) = sum of p g
    resize = step % period == period - 1
    if resize:
        group.rms.copy_((sums.pp / group.numel).sqrt())
    size = torch.where(group.scalar, opts["scalar_lr_scale"], group.rms.clamp(min=opts["param_min_rms"]))
    growth = _size_step(group, step) if resize and step > 0 else torch.zeros_like(group.rms)
    correction = 1 - beta2 ** (step + 1)
    new = 1 - beta1  # weight of this step in the momentum
    group.passes.step(
        StepSizes(
            beta1=beta1,
            beta2=beta2,
            weight=(1 - beta2) * clip * clip,
            factor=correction**-0.5 if correction < _FULL_CORRECTION else 1.0,
            eps=opts["eps"],
            rate=size * (-opts["lr"] * clip * new),
            growth=growth * new,
        )
    )
    for stack, state in zip(group.stacks, group.states):
        state["step"] += 1
        if stack.is_scalar:
            torch._foreach_clamp_min_(stack.params, -opts["scalar_max"])
            torch._foreach_clamp_max_(stack.params, opts["scalar_max"])


def _size_step(group: _Group, step: int) -> Tensor:
    """Return the relative change of each parameter's size, (N,): Adam on the logarithm of the size.

    0 for scalars.
    """
    opts, rms, grads = group.options, group.rms, group.size_grads
    period = opts["size_update_period"]
    beta = opts["betas"][1] ** period  # the decay of as many steps
    exp_avg_sq = group.size_avg_sq.mul_(beta).add_((grads**2).mean(dim=0), alpha=1 - beta)
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
