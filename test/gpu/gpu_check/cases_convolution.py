"""Cases: depthwise convolutions over time, and the ConvNeXt block of the front end."""

from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from asr_core.encoders.zipformer.convolution import ChunkCausalDepthwiseConv1d
from asr_core.ops import depthwise, perceptron
from gpu_check.cases import Case, Draw, Sizes, Work

_FIRST = {"frames": 750, "batch": 20, "channels": 192, "taps": 31}
_TINY = {"frames": 9, "batch": 2, "channels": 5, "taps": 5}
_ODD = {"frames": 203, "batch": 3, "channels": 97, "taps": 31}
_FRONT = {"batch": 20, "channels": 128, "frames": 750, "width": 19}


def _inputs(draw: Draw, s: Sizes) -> Sequence[Any]:
    return [
        draw.normal(s["frames"], s["batch"], s["channels"]),
        draw.normal(s["channels"], 1, s["taps"], scale=s["taps"] ** -0.5),
        draw.normal(s["channels"]),
    ]


def _elements(s: Sizes) -> int:
    return s["frames"] * s["batch"] * s["channels"] * s.get("width", 1)


def _forward(s: Sizes) -> Work:
    return Work(_elements(s), _elements(s), 2 * _elements(s) * s["taps"])


def _backward(s: Sizes) -> Work:
    return Work(2 * _elements(s), _elements(s), 4 * _elements(s) * s["taps"])


def _conv1d(name: str, pad: int, chunk: int) -> Case:
    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        taps = weight.shape[2]
        return depthwise.depthwise_conv1d(x, weight, bias, taps // 2 if pad < 0 else taps - 1, chunk)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        taps = weight.shape[2]
        return depthwise.depthwise_conv1d_plain(x, weight, bias, taps // 2 if pad < 0 else taps - 1, chunk)

    return Case(name, _inputs, ours, plain, _TINY, _ODD, _FIRST, _forward, _backward, slack=5.0)


def _chunk_causal_inputs(draw: Draw, s: Sizes) -> Sequence[Any]:
    c, taps = s["channels"], s["taps"]
    x, weight, bias = _inputs(draw, s)
    causal = [draw.normal(c, 1, (taps + 1) // 2, scale=taps**-0.5), draw.normal(c)]
    return [x, *causal, weight, bias, draw.normal(2, c, taps)]


def _chunk_causal(x: Tensor, *parameters: Tensor) -> Tensor:
    """Apply the module with these parameters; in float64 it takes its plain form."""
    module = ChunkCausalDepthwiseConv1d(x.size(2), parameters[2].size(2))
    names = ("causal_conv.weight", "causal_conv.bias", "chunkwise_conv.weight", "chunkwise_conv.bias")
    given = dict(zip((*names, "chunkwise_conv_scale"), parameters))
    return torch.func.functional_call(module, given, (x, min(16, x.size(0))))


def _inputs2d(draw: Draw, s: Sizes) -> Sequence[Any]:
    channels, taps, n, t = s["channels"], s["taps"], s["batch"], s["frames"]
    x = draw.normal(n, channels, t, s["width"], grad=False)
    lens = torch.tensor([t - i * t // (3 * n) for i in range(n)], device=draw.device)
    return [
        x.contiguous(memory_format=torch.channels_last).requires_grad_(),
        draw.normal(channels, 1, taps, taps, scale=1 / taps),
        draw.normal(channels),
        lens,
    ]


def _forward2d(s: Sizes) -> Work:
    return Work(_elements(s), _elements(s), 2 * _elements(s) * s["taps"] ** 2)


def _backward2d(s: Sizes) -> Work:
    return Work(2 * _elements(s), _elements(s), 4 * _elements(s) * s["taps"] ** 2)


def _perceptron_inputs(draw: Draw, s: Sizes) -> Sequence[Any]:
    """Return what a block makes of its input before the perceptron, and a sequence that is left."""
    channels, hidden, n = s["channels"], s["hidden"], s["batch"]
    shape = n, s["frames"], s["width"], channels
    x, y = (draw.normal(*shape, grad=False).permute(0, 3, 1, 2).requires_grad_() for _ in range(2))
    keep = torch.ones(n, 1, 1, 1, device=draw.device, dtype=draw.dtype)
    keep[-1] = 0.0
    layers = [
        draw.normal(hidden, channels, scale=2 * channels**-0.5),
        draw.normal(hidden, mean=1.0),
        draw.normal(channels, hidden, scale=hidden**-0.5),
        draw.normal(channels),
    ]
    return [x, y, *layers, keep]


def _perceptron(function: Callable[..., Tensor], balance: List[float]) -> Callable[..., Tensor]:
    def apply(x: Tensor, y: Tensor, *rest: Tensor) -> Tensor:
        return function(x, y, perceptron.Layers(*rest[:4]), rest[4], balance)

    return apply


def _perceptron_case(
    name: str,
    ours: Callable[..., Tensor],
    balance: List[float],
    note: str = "",
    odd: Optional[Dict[str, int]] = None,
) -> Case:
    def weights(s: Sizes) -> int:
        return 2 * s["channels"] * s["hidden"]

    again = 2 if balance else 1  # products that compute the hidden values again

    def flops(s: Sizes, products: int) -> float:
        return products * 2 * _elements(s) * s["hidden"]

    return Case(
        name,
        _perceptron_inputs,
        _perceptron(ours, balance),
        _perceptron(perceptron.add_perceptron_plain, balance),
        tiny={"batch": 2, "channels": 5, "frames": 4, "width": 3, "hidden": 15},
        odd=odd or {"batch": 3, "channels": 112, "frames": 51, "width": 19, "hidden": 336},
        bench={**_FRONT, "hidden": 384},
        forward=lambda s: Work(2 * _elements(s) + weights(s), _elements(s), flops(s, 2), matrix=True),
        backward=lambda s: Work(
            2 * _elements(s) + weights(s), _elements(s) + weights(s), flops(s, 4 + again), matrix=True
        ),
        slack=5.0,
        note=note,
    )


def _perceptrons() -> List[Case]:
    """Return the cases of the block's perceptron, for which a hidden balancer acts or not."""
    balance = [-0.1, 0.1, 0.5, 1.0, 0.04]
    unaligned = {"batch": 3, "channels": 97, "frames": 51, "width": 19, "hidden": 291}
    fused, parts = perceptron.add_perceptron, perceptron.add_perceptron_plain
    return [
        _perceptron_case("ConvNeXt perceptron", fused, []),
        _perceptron_case("ConvNeXt perceptron, balancer", fused, balance, odd=unaligned),
        _perceptron_case(
            "ConvNeXt perceptron by parts", parts, [], "cuBLAS' products, and kernels between them"
        ),
    ]


def cases() -> List[Case]:
    """Return the cases of this family."""
    return [
        _conv1d("depthwise conv1d", -1, 0),
        _conv1d("depthwise conv1d, causal", 0, 0),
        _conv1d("depthwise conv1d, chunks of 16", -1, 16),
        Case(
            "chunk-causal convolution",
            _chunk_causal_inputs,
            _chunk_causal,
            _chunk_causal,
            tiny=_TINY,
            odd=_ODD,
            bench=_FIRST,
            # the chunks' convolution is kept for the gradient of its scale
            forward=lambda s: Work(_elements(s), 2 * _elements(s), 3 * _elements(s) * s["taps"]),
            backward=lambda s: Work(3 * _elements(s), _elements(s), 6 * _elements(s) * s["taps"]),
            slack=5.0,
        ),
        Case(
            "depthwise conv2d 7 x 7",
            _inputs2d,
            depthwise.depthwise_conv2d,
            lambda x, w, b, lens: depthwise._conv2d(depthwise.blank_tails(x, lens), w, b),
            tiny={"batch": 2, "channels": 3, "frames": 6, "width": 5, "taps": 3},
            odd={"batch": 2, "channels": 33, "frames": 51, "width": 19, "taps": 7},
            bench={**_FRONT, "taps": 7},
            forward=_forward2d,
            backward=_backward2d,
            slack=5.0,
        ),
        *_perceptrons(),
    ]
