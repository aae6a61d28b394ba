"""ScaledAdam: Adam whose step is proportional to each parameter's size (Zipformer, Yao et al. 2023, section 3.4)."""

import logging
from typing import Any, Dict, Iterable, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from asr_core.training.clipping import GradientClipper

NamedParams = List[Tuple[str, nn.Parameter]]


class _Stack:
    """The parameters of one group that share dtype and shape, with their state stacked on a new axis 0.

    Grouping, order and scratch buffers are made once, so that a step is a dozen tensor operations per shape.
    """

    def __init__(self, params: List[Tensor], names: List[str]) -> None:
        self.params = params
        self.names = names
        first = params[0]
        self.shape = (len(params), *first.shape)
        self.is_scalar = first.numel() == 1
        self.column = (len(params), *([1] * first.dim()))  # one value per parameter
        self.grad = torch.zeros(self.shape, dtype=first.dtype, device=first.device)
        self.zero = torch.zeros_like(first)

    def init_state(self, state: Dict[str, Any], size_update_period: int) -> None:
        like = self.params[0]
        state["step"] = 0
        state["delta"] = torch.zeros_like(self.grad)
        state["exp_avg_sq"] = torch.zeros_like(self.grad)
        if not self.is_scalar:
            state["param_rms"] = self.rms(torch.stack(self.params))
            state["scale_exp_avg_sq"] = torch.zeros(self.column, dtype=like.dtype, device=like.device)
            state["scale_grads"] = torch.zeros(size_update_period, *self.column, dtype=like.dtype, device=like.device)

    def gather_grads(self) -> None:
        torch.stack([self.zero if p.grad is None else p.grad for p in self.params], out=self.grad)

    def rms(self, stacked: Tensor) -> Tensor:
        return (self.dot(stacked, stacked) / (stacked.numel() / len(self.params))).sqrt()

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum of products over everything but axis 0; shape (n, 1, ...)."""
        n = len(self.params)
        return torch.linalg.vecdot(a.reshape(n, -1), b.reshape(n, -1)).reshape(self.column)


class ScaledAdam(torch.optim.Optimizer):
    """Adam with steps relative to the rms of each parameter, a learned change of that rms, and clipping by the median norm.

    Parameters of equal dtype and shape are updated together. The state's layout is icefall's: only the first parameter of
    each (dtype, shape) has an entry, whose tensors are stacked on a new axis 0, so its training runs can be continued.
    A step whose gradient norm is not finite changes nothing and sets :attr:`skipped`.

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
        self._stacks: Optional[List[List[_Stack]]] = None
        self.skipped = False

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Load a state; ``base_lr`` of this optimizer's groups is kept, so that a resumed run may change it."""
        base_lrs = [group.get("base_lr") for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, base_lr in zip(self.param_groups, base_lrs):
            if base_lr is not None:
                group["base_lr"] = base_lr
        self._stacks = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter from its ``grad`` (a missing one counts as zero)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._stacks is None:
            self._stacks = [self._stack_group(i) for i in range(len(self.param_groups))]
        scales = [self._clipping_scale(group, stacks) for group, stacks in zip(self.param_groups, self._stacks)]
        self.skipped = any(scale is None for scale in scales)
        if self.skipped:
            return loss
        for group, stacks, scale in zip(self.param_groups, self._stacks, scales):
            for stack in stacks:
                state = self.state[stack.params[0]]
                (self._step_scalars if stack.is_scalar else self._step_tensors)(group, stack, state, scale)
                state["step"] += 1
        return loss

    def _stack_group(self, index: int) -> List[_Stack]:
        group = self.param_groups[index]
        by_shape: Dict[Tuple, Tuple[List[Tensor], List[str]]] = {}
        for p, name in zip(group["params"], self._names[index]):
            params, names = by_shape.setdefault((str(p.dtype), *p.shape), ([], []))
            params.append(p)
            names.append(name)
        stacks = [_Stack(*by_shape[key]) for key in sorted(by_shape)]
        for stack in stacks:
            state = self.state[stack.params[0]]
            if not state:
                stack.init_state(state, group["size_update_period"])
        return stacks

    def _clipping_scale(self, group: Dict[str, Any], stacks: List[_Stack]) -> Optional[float]:
        """Gather the gradients; the factor to multiply them with, or None where their norm is not finite."""
        if not stacks:
            return 1.0
        parts = []
        for stack in stacks:
            stack.gather_grads()
            size = group["scalar_lr_scale"] if stack.is_scalar else self.state[stack.params[0]]["param_rms"]
            parts.append((stack.dot(stack.grad, stack.grad) * size**2).flatten())
        sumsq = torch.cat([p.float() for p in parts])
        norm = float(sumsq.sum().sqrt())
        if norm - norm != 0.0:
            return None
        clipper = GradientClipper(group, self.state[stacks[0].params[0]])
        scale = clipper.update(norm)
        if scale < 0.5:
            names = [name for stack in stacks for name in stack.names]
            share, order = (sumsq / sumsq.sum()).sort(descending=True)
            worst = ", ".join(f"{names[int(i)]} ({100 * float(s):.0f}%)" for s, i in zip(share[:3], order[:3]))
            logging.warning("gradient norm %.2e clipped by %.3f; the parameters that make most of it: %s", norm, scale, worst)
        return scale

    def _adam_denominator(self, group: Dict[str, Any], stack: _Stack, state: Dict[str, Any], clip: float) -> Tensor:
        beta2 = group["betas"][1]
        exp_avg_sq = state["exp_avg_sq"]
        exp_avg_sq.mul_(beta2).addcmul_(stack.grad, stack.grad, value=(1 - beta2) * clip * clip)
        denominator = exp_avg_sq.sqrt()
        correction = 1 - beta2 ** (state["step"] + 1)
        if correction < 0.99:  # later the correction is too small to matter
            denominator.mul_(correction**-0.5)
        return denominator.add_(group["eps"])

    def _step_scalars(self, group: Dict[str, Any], stack: _Stack, state: Dict[str, Any], clip: float) -> None:
        beta1, lr = group["betas"][0], group["lr"] * group["scalar_lr_scale"]
        denominator = self._adam_denominator(group, stack, state, clip)
        delta = state["delta"].mul_(beta1).addcdiv_(stack.grad, denominator, value=-lr * clip * (1 - beta1))
        torch._foreach_add_(stack.params, list(delta.unbind()))
        for p in stack.params:
            p.clamp_(-group["scalar_max"], group["scalar_max"])

    def _step_tensors(self, group: Dict[str, Any], stack: _Stack, state: Dict[str, Any], clip: float) -> None:
        beta1, period, step = group["betas"][0], group["size_update_period"], state["step"]
        stacked = torch.stack(stack.params)
        torch.mul(stack.dot(stacked, stack.grad), clip, out=state["scale_grads"][step % period])
        resize = step % period == period - 1
        if resize:
            state["param_rms"].copy_(stack.rms(stacked))
        denominator = self._adam_denominator(group, stack, state, clip).div_(state["param_rms"].clamp(min=group["param_min_rms"]))
        delta = state["delta"].mul_(beta1).addcdiv_(stack.grad, denominator, value=-group["lr"] * clip * (1 - beta1))
        if resize and step > 0:
            delta.addcmul_(stacked, _size_step(group, state), value=1 - beta1)
        torch._foreach_add_(stack.params, list(delta.unbind()))


def _size_step(group: Dict[str, Any], state: Dict[str, Any]) -> Tensor:
    """Relative change of each parameter's size, (n, 1, ...): Adam on the log of the size."""
    period, rms, grads = group["size_update_period"], state["param_rms"], state["scale_grads"]
    beta = group["betas"][1] ** period
    exp_avg_sq = state["scale_exp_avg_sq"].mul_(beta).add_((grads**2).mean(dim=0), alpha=1 - beta)
    correction = 1 - beta ** ((state["step"] + 1) // period)
    lr = group["lr"] * group["scalar_lr_scale"]
    change = grads.sum(dim=0) / (exp_avg_sq.sqrt() + group["eps"]) * (-lr * correction**0.5)
    change.masked_fill_(rms < group["param_min_rms"], 0.0).clamp_(-0.1, 0.1)
    return torch.minimum(change, (group["param_max_rms"] - rms) / rms)


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
        pairs: NamedParams = [e if isinstance(e, tuple) else (f"parameter {i}", e) for i, e in enumerate(entries)]
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
