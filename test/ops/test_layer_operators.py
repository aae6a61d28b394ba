"""Activations, norms and balancers as operators: torch's own checks of them, and what tracers make
of the layers that use them.
"""

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch.fx.experimental.proxy_tensor import make_fx

from asr_core.encoders.zipformer.feedforward import FeedforwardModule
from asr_core.nn.scaling import BiasNorm
from asr_core.nn.subsampling import ConvNeXt
from asr_core.ops import (
    activation_linear,
    balancer,
    basic_norm,
    double_swish,
    norm,
    perceptron,
    slopes,
    swoosh,
    whiten,
)
from asr_core.ops.whiten import whiten_gradient

BOUNDS = (-0.1, 0.1, 0.4, 0.6)
LAYERS_OF_PERCEPTRON = ((5, 3), (5,), (3, 5), (3,))


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grad(*shape, seed=0):
    return rand(*shape, seed=seed).requires_grad_()


def _table(*numbers):
    table = torch.zeros(2, 6, dtype=torch.float64)
    table[1, : len(numbers)] = torch.tensor(numbers)
    return table


def images():
    """Two inputs (N, C, T, F) with channels innermost."""
    return [rand(2, 4, 5, 3, seed=s).permute(0, 3, 1, 2).requires_grad_() for s in (0, 1)]


CASES = {
    "swoosh": (swoosh._swoosh_operator, lambda: (grad(3, 4), 1.0, 0.313)),
    "swoosh_transposed": (swoosh._swoosh_operator, lambda: (rand(3, 4).t().requires_grad_(), 1.0, 0.313)),
    "swoosh_and_codes": (swoosh._swoosh_and_codes_operator, lambda: (grad(3, 4), 1.0, 0.313)),
    "slope_backward": (
        slopes.slope_backward_operator,
        lambda: (torch.arange(12, dtype=torch.uint8).view(3, 4), rand(3, 4), *slopes.SWOOSH_SCALE),
    ),
    "double_swish": (double_swish._operator, lambda: (grad(3, 4),)),
    "double_swish_and_codes": (double_swish._operator_with_codes, lambda: (grad(3, 4),)),
    "activation_linear": (
        activation_linear._operator,
        lambda: (grad(5, 2, 4), grad(3, 4, seed=1), grad(3, seed=2), "SwooshL", torch.ones(1, 2, 4)),
    ),
    "activation_linear_alone": (
        activation_linear._operator,
        lambda: (grad(5, 2, 4), grad(3, 4, seed=1), None, "SwooshR", None),
    ),
    "bias_norm": (
        norm._operator,
        lambda: (grad(5, 2, 4), grad(4, seed=1), torch.tensor(0.3, requires_grad=True)),
    ),
    "basic_norm": (basic_norm._operator, lambda: (grad(5, 2, 4), torch.tensor(0.3, requires_grad=True))),
    "add_perceptron": (
        perceptron._operator,
        lambda: (*images(), *(grad(*s, seed=2) for s in LAYERS_OF_PERCEPTRON), None, []),
    ),
    "add_perceptron_drawn": (
        perceptron._operator,
        lambda: (
            *images(),
            *(grad(*s, seed=2) for s in LAYERS_OF_PERCEPTRON),
            torch.tensor([1.0, 0.0]).view(2, 1, 1, 1),
            [*BOUNDS, 0.04],
        ),
    ),
    "add_perceptron_mixed_types": (  # autocast's, on a GPU whose matrix units no kernel knows
        perceptron._operator,
        lambda: (
            images()[0],
            images()[1].detach().bfloat16().requires_grad_(),
            *(grad(*s, seed=2) for s in LAYERS_OF_PERCEPTRON),
            None,
            [*BOUNDS, 0.04],
        ),
    ),
    "balancer": (balancer._operator, lambda: (rand(5, 2, 4), rand(5, 2, 4, seed=1), *BOUNDS, 0.04, -1)),
    "balancer_as_drawn": (
        balancer._as_drawn_operator,
        lambda: (rand(5, 2, 4), rand(5, 2, 4, seed=1), _table(1, *BOUNDS, 0.04), 1, -1),
    ),
    "balancer_idle": (
        balancer._as_drawn_operator,
        lambda: (rand(5, 2, 4), rand(5, 2, 4, seed=1), _table(), 1, -1),
    ),
    "whiten_as_drawn": (
        whiten._as_drawn_operator,
        lambda: (rand(5, 2, 4), rand(5, 2, 4, seed=1), 2, _table(1, 1.1, 0.1), 1),
    ),
    "whiten_idle": (
        whiten._as_drawn_operator,
        lambda: (rand(5, 2, 4), rand(5, 2, 4, seed=1), 2, _table(), 1),
    ),
    "balancer_of_images": (
        balancer._operator,
        lambda: (rand(2, 3, 4, 5), rand(2, 4, 5, 3).permute(0, 3, 1, 2), *BOUNDS, 0.04, 1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_pass_torchs_checks(name):
    operator, arguments = CASES[name]
    if "codes" in name:  # slopes rounded by chance are no exact gradients of anything
        torch.library.opcheck(operator, arguments(), test_utils=("test_schema", "test_faketensor"))
    else:
        torch.library.opcheck(operator, arguments())


LAYERS = {
    "feed_forward": (lambda: FeedforwardModule(8, 16, 0.1), (5, 2, 8), ["activation_linear"]),
    "bias_norm": (lambda: BiasNorm(8), (5, 2, 8), ["bias_norm"]),
    "convnext_perceptron": (
        lambda: _Perceptron(ConvNeXt(4, hidden_ratio=2, kernel_size=(3, 3))),
        (2, 4, 6, 5),
        ["activation_linear"],
    ),
}


class _Perceptron(torch.nn.Module):
    def __init__(self, convnext):
        super().__init__()
        self.convnext = convnext

    def forward(self, x):
        return perceptron.add_perceptron(x, 2 * x, self.convnext._layers())


@pytest.mark.parametrize("name", LAYERS)
def test_compilers_take_layers_whole(name):
    """Forward and backward are one graph each, which hold the operators and compute the same."""
    make, shape, operators = LAYERS[name]
    layer, x, seen = make().eval(), grad(*shape), []

    def look(graph, _):
        seen.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=look, fullgraph=True)
    wanted = layer(x)
    torch.testing.assert_close(compiled(x), wanted)
    assert len(seen) == 1
    for operator in operators:
        assert f"asr_core.{operator}.default" in seen[0]
    expected = torch.autograd.grad(wanted.square().sum(), [x, *layer.parameters()], allow_unused=True)
    got = torch.autograd.grad(compiled(x).square().sum(), [x, *layer.parameters()], allow_unused=True)
    for one, other in zip(got, expected):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LAYERS)
def test_exports_hold_torchs_own_operations_alone(name):
    make, shape, _ = LAYERS[name]
    layer, axis = make().eval(), 2 if len(shape) == 4 else 0
    program = torch.export.export(
        layer, (rand(*shape),), dynamic_shapes=({axis: torch.export.Dim("T", min=2)},)
    )
    assert not [node for node in program.graph.nodes if "asr_core" in str(node.target)]
    longer = list(shape)
    longer[axis] += 3
    x = rand(*longer, seed=1)
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("balance", [[], [*BOUNDS, 0.04]])
def test_compilers_see_the_kernels_of_perceptrons(balance, monkeypatch):
    def layer(x, y, *layers):
        return perceptron.add_perceptron(x, y, perceptron.Layers(*layers), None, balance).square()

    seen = []

    def look(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return torch._functorch.aot_autograd.make_boxed_func(graph.forward)

    given = [*images(), *(grad(*shape, seed=2) for shape in LAYERS_OF_PERCEPTRON)]
    wanted = torch.autograd.grad(layer(*given).sum(), given)
    monkeypatch.setattr(perceptron, "_has_kernels", lambda *_: True)  # as on a GPU
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=aot_autograd(fw_compiler=look, bw_compiler=look), fullgraph=True)
    got = torch.autograd.grad(compiled(*given).sum(), given)
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other)
    assert {"asr_core.add_perceptron.default", "asr_core.add_perceptron_backward.default"} <= set(seen)


def _step(x):
    """A layer and its gradients, with whatever acts in training alone."""
    weight, bias = torch.ones(4, 4) * 0.1, torch.ones(4) * 0.1
    y = balancer.balance_gradient(x * 2, BOUNDS, 0.04, -1)
    y = whiten_gradient(y, 1, 1.0, 0.1, lambda _: None)
    y = activation_linear.activation_linear(y, weight, bias, "SwooshL", torch.ones(1, 2, 4))
    y = norm.bias_norm(double_swish.double_swish(swoosh.swoosh_r(y)), bias, torch.tensor(0.1))
    y = basic_norm.basic_norm(y, torch.tensor(0.1))
    return torch.autograd.grad(y.square().sum(), x)[0]


@pytest.mark.parametrize("mode", ["real", "symbolic"])
def test_make_fx_records_gradients(mode):
    graph = make_fx(_step, tracing_mode=mode)(grad(5, 2, 4))
    seen = " ".join(str(node.target) for node in graph.graph.nodes)
    for name in ("balancer", "activation_linear_backward", "bias_norm_backward", "basic_norm_backward"):
        assert f"asr_core.{name}." in seen
    x = grad(5, 2, 4, seed=3)
    torch.testing.assert_close(graph(x), _step(x))


def test_compiled_gradients_of_balancers():
    def layer(x):
        return balancer.balance_gradient(x * 2, BOUNDS, 0.04, -1).square()

    seen = []

    def look(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return torch._functorch.aot_autograd.make_boxed_func(graph.forward)

    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=aot_autograd(fw_compiler=look, bw_compiler=look), fullgraph=True)
    x = grad(30, 4)
    (got,), (wanted,) = (torch.autograd.grad(f(x).sum(), x) for f in (compiled, layer))
    torch.testing.assert_close(got, wanted)
    assert "asr_core.balancer.default" in seen
