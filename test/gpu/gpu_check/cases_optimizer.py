"""Cases: the optimizer's passes and the averages of weights."""

from typing import Any, Callable, List, Sequence

import torch
from torch import Tensor, nn

from asr_core.models import ModelOptions, build_model
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.scaled_adam import ScaledAdam
from asr_core.utils.options import from_params
from gpu_check.cases import Case, Draw, Sizes, Work

_SHAPES = [(70, 60), (7,), (3, 1, 5), (3, 1, 5), ()]  # the first is more than one piece of the kernels
_MEDIUM = 65_549_011  # parameters of the medium model, nearly
_FEW = {"parameters": sum(torch.Size(shape).numel() for shape in _SHAPES)}


def _shapes(s: Sizes) -> List[Any]:
    if s["parameters"] == _FEW["parameters"]:
        return _SHAPES
    with torch.device("meta"):
        model = build_model(from_params(ModelOptions, {"model_size": "medium"}), 500)
    return [p.shape for p in model.parameters()]


def _weights_and_gradients(draw: Draw, s: Sizes) -> Sequence[Any]:
    shapes = _shapes(s)
    weights = [draw.normal(*shape, grad=False) for shape in shapes]
    return [len(shapes), *weights, *(draw.normal(*shape, grad=False) for shape in shapes)]


def _optimizer(args: Sequence[Any]) -> ScaledAdam:
    count, tensors = args[0], args[1:]
    params = [nn.Parameter(t.clone()) for t in tensors[:count]]
    for p, g in zip(params, tensors[count:]):
        p.grad = g.clone()
    return ScaledAdam(params, lr=0.02, clipping_scale=2.0, clipping_update_period=4)


def _six_steps(*args: Any) -> List[Tensor]:
    """Return the weights after steps enough for changes of size and for clipping."""
    optimizer = _optimizer(args)
    for _ in range(6):
        optimizer.step()
    return [p.detach() for group in optimizer.param_groups for p in group["params"]]


def _one_step(args: Sequence[Any]) -> List[Callable[[], Any]]:
    return [_optimizer(args).step]


class _Weights(nn.Module):
    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(t.clone()) for t in tensors])


def _weights(draw: Draw, s: Sizes) -> Sequence[Any]:
    return [draw.normal(*shape, grad=False) for shape in _shapes(s)]


def _two_moves(*args: Any) -> List[Tensor]:
    model = _Weights(args)
    mean = ModelAverage(model, period=1)
    with torch.no_grad():
        for batch in (2, 3):
            for p in model.parameters():
                p.mul_(2.0)
            mean.update(batch)
    return list(mean.state_dict().values())


def _one_move(args: Sequence[Any]) -> List[Callable[[], Any]]:
    mean = ModelAverage(_Weights(args), period=1)
    return [lambda: mean.update(3)]


def cases() -> List[Case]:
    """Return the cases of this family."""
    common = {"tiny": _FEW, "odd": _FEW, "bench": {"parameters": _MEDIUM}, "bench_dtype": "float32"}
    return [
        Case(
            "ScaledAdam",
            _weights_and_gradients,
            _six_steps,
            _six_steps,
            # sums of products first, which need p and g; then p, g, m, v in and p, m, v out
            forward=lambda s: Work(6 * s["parameters"], 3 * s["parameters"], 20 * s["parameters"]),
            dtypes=("float32",),
            stages=_one_step,
            **common,
        ),
        Case(
            "average of the weights",
            _weights,
            _two_moves,
            _two_moves,
            forward=lambda s: Work(3 * s["parameters"], 2 * s["parameters"], 4 * s["parameters"]),
            dtypes=("float32",),
            stages=_one_move,
            **common,
        ),
    ]
