"""ScaledAdam: Adam whose step is proportional to each parameter's size (Zipformer, Yao et al. 2023, section 3.4)."""

import logging
import math
from typing import Any, Dict, Iterable, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from asr_core.training.optim.clipping import GradientClipper
from asr_core.training.optim.stacked_parameters import CpuPasses, Stack, StepSizes, TorchPasses

NamedParams = List[Tuple[str, nn.Parameter]]


class _Group:
    """A parameter group: its stacks, and one value per parameter for what is not per element.

    Attributes:
      names: the N parameters' names, in the order of the stacks.
      scalar: (N,) bool, parameters of one element.
      rms, size_grads, size_avg_sq: (N,), (period, N), (N,); the optimizer's state holds views of them.
    """

    def __init__(
        self,
        options: Dict[str, Any],
        params: List[Tensor],
        names: List[str],
        states: Dict[Tensor, Dict[str, Any]],
    ) -> None:
        by_shape: Dict[Tuple, List[int]] = {}
        for i, p in enumerate(params):
            by_shape.setdefault((str(p.dtype), *p.shape), []).append(i)
        order = [by_shape[key] for key in sorted(by_shape)]
        self.options = options
        self.names = [names[i] for members in order for i in members]
        self.state = states[params[order[0][0]]]  # of the first stack; the group's own values are in it
        self.states = [states[params[members[0]]] for members in order]
        self.stacks: List[Stack] = []
        for members, state in zip(order, self.states):
            state.setdefault("step", 0)
            first = sum(len(s.params) for s in self.stacks)
            self.stacks.append(Stack([params[i] for i in members], first, state))
        self.passes = (CpuPasses if CpuPasses.fit(self.stacks) else TorchPasses)(self.stacks)
        counts = [(s.is_scalar, s.params[0].numel()) for s in self.stacks for _ in s.params]
        like = dict(
            dtype=torch.float64 if params[0].dtype == torch.float64 else torch.float32,
            device=params[0].device,
        )
        self.scalar = torch.tensor([is_scalar for is_scalar, _ in counts], device=params[0].device)
        self.numel = torch.tensor([n for _, n in counts], **like)
        n = len(counts)
        self.rms, self.size_avg_sq = torch.ones(n, **like), torch.zeros(n, **like)
        self.size_grads = torch.zeros(options["size_update_period"], n, **like)
        self._share_state()

    @torch.no_grad()
    def _share_state(self) -> None:
        """Make the state's per-parameter entries views of this group's vectors, which take over what was loaded."""
        sizes = {"param_rms": self.rms, "scale_exp_avg_sq": self.size_avg_sq, "scale_grads": self.size_grads}
        for stack, state in zip(self.stacks, self.states):
            if stack.is_scalar:
                continue
            if "param_rms" not in state:
                state["param_rms"] = torch.stack(
                    [p.float().square().mean().sqrt() for p in stack.params]
                ).view(stack.column)
            for name, flat in sizes.items():
                view = stack.part_of(flat)
                if name in state:
                    view.copy_(state[name])
                state[name] = view


class ScaledAdam(torch.optim.Optimizer):
    """Adam with steps relative to the rms of each parameter, a learned change of that rms, and clipping by the median norm.

    Parameters of equal dtype and shape are updated together. The state's layout is icefall's: only the first parameter of
    each (dtype, shape) has an entry, whose tensors are stacked on a new axis 0, so its training runs can be continued.
    A step whose gradient norm is not finite changes nothing and sets :attr:`skipped`; :attr:`grad_norm` is the last step's norm,
    of gradients times the sizes of their parameters.

    Args:
      params: parameters, (name, parameter) pairs, or groups with the key ``params`` or ``named_params``.
      lr: learning rate, relative to a parameter's rms.
      clipping_scale: clip the gradient norm at this multiple of its recent median; None: never.
      betas: decay of momentum and of the squared gradient's average.
      scalar_lr_scale: factor on ``lr`` for scalars and for the change of a parameter's overall size.
      eps: added to denominators.
      param_min_rms: parameters with a smaller rms are treated as if it were this one.
      param_max_rms: parameters do not grow beyond this rms.
      scalar_max: scalars stay within plus/minus this.
      size_update_period: the size of a parameter is changed once in so many steps.
      clipping_update_period: steps over which the median norm is taken.
    """

    def __init__(
        self,
        params: Iterable[Any],
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
        """Load a state; ``base_lr`` of this optimizer's groups is kept, so that a resumed run may change it."""
        base_lrs = [group.get("base_lr") for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, base_lr in zip(self.param_groups, base_lrs):
            if base_lr is not None:
                group["base_lr"] = base_lr
        self._groups = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
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
        self.grad_norm = 0.0
        sums = [group.passes.sums() for group in self._groups]
        scales = [self._clipping_scale(group, gg) for group, (gg, _, _) in zip(self._groups, sums)]
        self.skipped = any(scale is None for scale in scales)
        if not self.skipped:
            for group, (_, pg, pp), scale in zip(self._groups, sums, scales):
                self._step_group(group, pg * scale, pp, scale)
        return loss

    def _clipping_scale(self, group: _Group, grad_sumsq: Tensor) -> Optional[float]:
        """The factor for the gradients, or None where their norm is not finite."""
        size = torch.where(group.scalar, group.options["scalar_lr_scale"], group.rms)
        sumsq = grad_sumsq * size**2
        norm = float(sumsq.sum().sqrt())
        self.grad_norm = math.hypot(self.grad_norm, norm)
        if norm - norm != 0.0:
            return None
        scale = GradientClipper(group.options, group.state).update(norm)
        if scale < 0.5:
            share, order = (sumsq / sumsq.sum()).sort(descending=True)
            worst = ", ".join(
                f"{group.names[int(i)]} ({100 * float(s):.0f}%)" for s, i in zip(share[:3], order[:3])
            )
            logging.warning(
                "gradient norm %.2e clipped by %.3f; the parameters that make most of it: %s",
                norm,
                scale,
                worst,
            )
        return scale

    def _step_group(self, group: _Group, weight_grads: Tensor, weight_sumsq: Tensor, clip: float) -> None:
        opts, step = group.options, group.state["step"]
        beta1, beta2 = opts["betas"]
        lr, period = opts["lr"], opts["size_update_period"]
        group.size_grads[step % period] = weight_grads
        resize = step % period == period - 1
        if resize:
            group.rms.copy_((weight_sumsq / group.numel).sqrt())
        size = torch.where(group.scalar, opts["scalar_lr_scale"], group.rms.clamp(min=opts["param_min_rms"]))
        growth = _size_step(group, step) if resize and step > 0 else torch.zeros_like(group.rms)
        correction = 1 - beta2 ** (step + 1)
        factor = correction**-0.5 if correction < 0.99 else 1.0  # later the correction is too small to matter
        new = 1 - beta1
        group.passes.step(
            StepSizes(
                beta1=beta1,
                beta2=beta2,
                weight=(1 - beta2) * clip * clip,
                factor=factor,
                eps=opts["eps"],
                rate=size * (-lr * clip * new),
                growth=growth * new,
            )
        )
        for stack, state in zip(group.stacks, group.states):
            state["step"] += 1
            if stack.is_scalar:
                torch._foreach_clamp_min_(stack.params, -opts["scalar_max"])
                torch._foreach_clamp_max_(stack.params, opts["scalar_max"])


def _size_step(group: _Group, step: int) -> Tensor:
    """Relative change of each parameter's size, (N,): Adam on the log of the size; 0 for scalars."""
    opts, rms, grads = group.options, group.rms, group.size_grads
    period = opts["size_update_period"]
    beta = opts["betas"][1] ** period
    exp_avg_sq = group.size_avg_sq.mul_(beta).add_((grads**2).mean(dim=0), alpha=1 - beta)
    correction = 1 - beta ** ((step + 1) // period)
    lr = opts["lr"] * opts["scalar_lr_scale"]
    change = grads.sum(dim=0) / (exp_avg_sq.sqrt() + opts["eps"]) * (-lr * correction**0.5)
    change.masked_fill_(rms < opts["param_min_rms"], 0.0).clamp_(-0.1, 0.1)
    change = torch.minimum(change, (opts["param_max_rms"] - rms) / rms)
    return change.masked_fill_(group.scalar, 0.0)


def _named_groups(params: Iterable[Any]) -> Tuple[List[Dict[str, Any]], List[List[str]]]:
    """Bring parameters, named parameters or groups of them into torch's form; the names apart."""
    items = list(params)
    if not items:
        raise ValueError("ScaledAdam got no parameters")
    raw = items if isinstance(items[0], dict) else [{"params": items}]
    groups, names = [], []
    for group in raw:
        group = dict(group)
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

    The rate of a parameter is ``lr`` times the ``lr_scale`` attributes of all modules that it lies in.

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
