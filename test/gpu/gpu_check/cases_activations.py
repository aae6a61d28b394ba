"""Cases: activations, norms and what acts on gradients alone."""

from typing import Any, List, Sequence

import torch

from asr_core.ops import balancer, basic_norm, double_swish, norm, swoosh, whiten
from asr_core.ops.activation_linear import activation_linear
from asr_core.ops.bypass import interpolate
from asr_core.ops.gate import gate, gate_plain
from asr_core.ops.limits import limit_value
from gpu_check.cases import Case, Draw, Sizes, Work

# Feed-forward modules of the first stack on 20 utterances of 15 s.
_FEEDFORWARD = {"rows": 15000, "channels": 512}
_NORM = {"rows": 7500, "channels": 256}
_TINY = {"rows": 7, "channels": 37}
_ODD = {"rows": 3001, "channels": 193}


def _one_input(draw: Draw, sizes: Sizes) -> Sequence[Any]:
    return [draw.normal(sizes["rows"], sizes["channels"], scale=8.0)]


def _elements(sizes: Sizes) -> int:
    return sizes["rows"] * sizes["channels"]


def _activation(name: str, ours: Any, plain: Any) -> Case:
    """Return the case of an activation that keeps, in half precision, a byte per element."""
    return Case(
        name,
        _one_input,
        ours,
        plain,
        tiny=_TINY,
        odd=_ODD,
        bench=_FEEDFORWARD,
        forward=lambda s: Work(_elements(s), _elements(s), 8 * _elements(s), other_bytes=_elements(s)),
        backward=lambda s: Work(_elements(s), _elements(s), 3 * _elements(s), other_bytes=_elements(s)),
        slack=3.0,
        note="slopes in half precision are rounded to a byte",
    )


def _activations() -> List[Case]:
    plain = {
        name: lambda x, numbers=numbers: swoosh.swoosh_plain(x, *numbers)
        for name, numbers in swoosh.SWOOSH.items()
    }
    return [
        _activation("SwooshL", swoosh.swoosh_l, plain["SwooshL"]),
        _activation("SwooshR", swoosh.swoosh_r, plain["SwooshR"]),
        _activation("DoubleSwish", double_swish.double_swish, double_swish.double_swish_plain),
    ]


def _frames(sizes: Sizes) -> int:
    return sizes["frames"] * _elements({"rows": sizes["sequences"], **sizes})


def _linear_inputs(draw: Draw, sizes: Sizes) -> Sequence[Any]:
    rows, channels = sizes["rows"], sizes["channels"]
    out = sizes["out"]
    return [
        draw.normal(rows, channels, scale=4.0),
        draw.normal(out, channels, scale=channels**-0.5),
        draw.normal(out),
    ]


def _dropped_inputs(draw: Draw, sizes: Sizes) -> Sequence[Any]:
    """Return sequences (T, N, C), and a mask that they share over time."""
    x, weight, bias = _linear_inputs(draw, sizes)
    x = x.detach().view(-1, sizes["sequences"], sizes["channels"]).requires_grad_()
    mask = draw.bernoulli(0.9, 1, *x.shape[1:]).to(x.dtype) / 0.9
    return [x, weight, bias, mask]


def _linear_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        weight = s["channels"] * s["out"]
        wide, narrow = _elements(s), s["rows"] * s["out"]
        read = wide + weight + (narrow if passes == 2 else 0)
        written = narrow if passes == 1 else wide + weight
        return Work(read, written, 2 * passes * s["rows"] * weight, matrix=True)

    return work


def _norm_inputs(draw: Draw, sizes: Sizes) -> Sequence[Any]:
    channels = sizes["channels"]
    return [draw.normal(sizes["rows"], channels), draw.float32(channels, scale=0.3), draw.float32()]


def _balanced(x: torch.Tensor) -> torch.Tensor:
    return balancer.balance_gradient(x, (-0.1, 0.1, 0.5, 1.0), 0.04, -1)


def _balanced_first(x: torch.Tensor) -> torch.Tensor:
    """Balance the same channels, which lie outermost in memory."""
    return balancer.balance_gradient(x.t().contiguous(), (-0.1, 0.1, 0.5, 1.0), 0.04, 0).t()


def _balanced_plain(x: torch.Tensor) -> torch.Tensor:
    return _BalancerByFormula.apply(x)


def _bypass_inputs(draw: Draw, sizes: Sizes) -> Sequence[Any]:
    shape = sizes["frames"], sizes["sequences"], sizes["channels"]
    return [draw.normal(*shape), draw.normal(*shape), draw.float32(*shape[1:], scale=0.1, mean=0.5)]


def _gate_inputs(draw: Draw, sizes: Sizes) -> Sequence[Any]:
    frames, n = sizes["frames"], sizes["sequences"]
    lens = torch.tensor([frames - i * frames // (2 * n) for i in range(n)])
    padded = torch.arange(frames).unsqueeze(1) >= lens
    return [draw.normal(frames, n, 2 * sizes["channels"]), padded.to(draw.device)]


def _limited(x: torch.Tensor) -> torch.Tensor:
    return limit_value(x, 0.2, 1.1)


class _BalancerByFormula(torch.autograd.Function):
    """The balancer, from the coefficients that the CPU's plain form takes too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        mean, mean_sq = x.mean(dim=0), x.square().mean(dim=0)
        a, b = balancer.balancer_coefficients(mean, mean_sq, (-0.1, 0.1, 0.5, 1.0), 0.04)
        return grad + grad.abs() * (a + b * x)


def _gradient_only_inputs(draw: Draw, sizes: Sizes) -> Sequence[Any]:
    return [draw.normal(sizes["rows"], sizes["channels"], scale=2.0, mean=0.7)]


def _whitened(x: torch.Tensor) -> torch.Tensor:
    return whiten.whiten_gradient(x, 1, 1.0, 0.1, lambda exceeded: None)


def _covariance(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        square = s["rows"] * s["channels"] ** 2
        return Work(2 * _elements(s), _elements(s), 2 * 2 * square, matrix=True) if passes else Work(0, 0, 0)

    return work


def cases() -> List[Case]:
    """Return the cases of this family."""
    nothing = lambda s: Work(0, 0, 0)  # noqa: E731
    return [
        *_activations(),
        Case(
            "SwooshL + linear",
            _linear_inputs,
            lambda x, w, b: activation_linear(x, w, b, "SwooshL"),
            lambda x, w, b: torch.nn.functional.linear(swoosh.swoosh_plain(x, 4.0, 0.035), w, b),
            tiny={**_TINY, "out": 19},
            odd={**_ODD, "out": 97},
            bench={**_FEEDFORWARD, "out": 192},
            forward=_linear_work(1),
            backward=_linear_work(2),
            slack=2.0,
        ),
        Case(
            "SwooshL + dropout + linear",
            _dropped_inputs,
            lambda x, w, b, mask: activation_linear(x, w, b, "SwooshL", mask),
            lambda x, w, b, mask: torch.nn.functional.linear(swoosh.swoosh_plain(x, 4.0, 0.035) * mask, w, b),
            tiny={**_TINY, "rows": 21, "out": 19, "sequences": 7},
            odd={**_ODD, "rows": 3003, "out": 97, "sequences": 11},
            bench={**_FEEDFORWARD, "out": 192, "sequences": 20},
            forward=_linear_work(1),
            backward=_linear_work(2),
            slack=2.0,
        ),
        Case(
            "BiasNorm",
            _norm_inputs,
            norm.bias_norm,
            norm.bias_norm_plain,
            tiny=_TINY,
            odd=_ODD,
            bench=_NORM,
            forward=lambda s: Work(_elements(s), _elements(s), 5 * _elements(s)),
            backward=lambda s: Work(2 * _elements(s), _elements(s), 10 * _elements(s)),
            slack=2.0,
        ),
        Case(
            "BasicNorm",
            lambda draw, s: [draw.normal(s["rows"], s["channels"]), draw.float32()],
            basic_norm.basic_norm,
            basic_norm.basic_norm_plain,
            tiny=_TINY,
            odd=_ODD,
            bench=_NORM,
            forward=lambda s: Work(_elements(s), _elements(s), 4 * _elements(s)),
            backward=lambda s: Work(2 * _elements(s), _elements(s), 8 * _elements(s)),
            slack=2.0,
        ),
        Case(
            "bypass",
            _bypass_inputs,
            interpolate,
            torch.lerp,
            tiny={"frames": 5, "sequences": 2, "channels": 19},
            odd={"frames": 301, "sequences": 7, "channels": 193},
            bench={"frames": 375, "sequences": 20, "channels": 256},
            forward=lambda s: Work(2 * _frames(s), _frames(s), 3 * _frames(s)),
            backward=lambda s: Work(3 * _frames(s), 2 * _frames(s), 6 * _frames(s)),
            slack=2.0,
        ),
        Case(
            "gate of a convolution module",
            _gate_inputs,
            gate,
            gate_plain,
            tiny={"frames": 5, "sequences": 2, "channels": 19},
            odd={"frames": 301, "sequences": 7, "channels": 193},
            bench={"frames": 750, "sequences": 20, "channels": 192},
            forward=lambda s: Work(2 * _frames(s), _frames(s), 4 * _frames(s)),
            backward=lambda s: Work(3 * _frames(s), 2 * _frames(s), 8 * _frames(s)),
            slack=2.0,
        ),
        Case(
            "limits of parameters (gradient)",
            lambda draw, s: [draw.normal(s["rows"], s["channels"])],
            _limited,
            _limited,
            tiny=_TINY,
            odd=_ODD,
            bench={"rows": 20, "channels": 192},
            forward=nothing,
            backward=lambda s: Work(2 * _elements(s), _elements(s), 4 * _elements(s)),
            note="plain: itself in float64",
        ),
        Case(
            "balancer (gradient)",
            _gradient_only_inputs,
            _balanced,
            _balanced_plain,
            tiny=_TINY,
            odd=_ODD,
            bench=_FEEDFORWARD,
            forward=nothing,
            backward=lambda s: Work(3 * _elements(s), _elements(s), 8 * _elements(s)),
        ),
        Case(
            "balancer (gradient), channels first",
            _gradient_only_inputs,
            _balanced_first,
            _balanced_plain,
            tiny=_TINY,
            odd=_ODD,
            bench=_FEEDFORWARD,
            forward=nothing,
            backward=lambda s: Work(3 * _elements(s), _elements(s), 8 * _elements(s)),
            note="timed with two transpositions",
        ),
        Case(
            "whitening (gradient)",
            _gradient_only_inputs,
            _whitened,
            _whitened,
            tiny=_TINY,
            odd=_ODD,
            bench=_NORM,
            forward=nothing,
            backward=_covariance(1),
            slack=3.0,
            note="plain: itself in float64",
        ),
    ]
