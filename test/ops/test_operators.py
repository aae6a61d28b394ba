"""Operators pass torch's own checks of schema, fake results and gradients."""

import pytest
import torch

from asr_core.ops import attention, depthwise, swoosh


def test_swoosh_as_an_operator():
    x = torch.randn(3, 4, requires_grad=True)
    torch.library.opcheck(swoosh._swoosh_operator, (x, 1.0, 0.313))


def test_a_compiler_sees_one_node_and_computes_the_same():
    nodes = []

    def look(graph, _):
        nodes.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    x = torch.randn(3, 4)
    compiled = torch.compile(lambda x: swoosh.swoosh_r(x) + 1, backend=look, fullgraph=True)
    torch.testing.assert_close(compiled(x), swoosh.swoosh_r(x) + 1, rtol=0, atol=0)
    assert any("asr_core.swoosh" in str(node) for node in nodes)


@pytest.mark.parametrize("with_positions", [True, False])
def test_attention_weights_as_an_operator(with_positions):
    q, k = (torch.randn(2, 2, 3, 4, requires_grad=True) for _ in range(2))
    p = torch.randn(2, 2, 3, 2, requires_grad=True) if with_positions else None
    pos = torch.randn(2, 5, 2, requires_grad=with_positions)
    mask = torch.tensor([[False, False, False], [False, False, True]]).unsqueeze(1)
    torch.library.opcheck(attention._operator, (q, k, p, pos, mask, 0.5, 0.01))
    outputs = attention._operator(q, k, p, pos, mask, 0.5, 0.01)
    directly = attention.attention_weights(q, k, p, pos, mask, 0.5, 0.01)
    leaves = [q, k] + ([p, pos] if with_positions else [])
    for used in ((0, 1), (0,), (1,)):
        grads = [torch.randn(outputs[i].shape) for i in used]
        got = torch.autograd.grad([outputs[i] for i in used], leaves, grads, retain_graph=True)
        want = torch.autograd.grad([directly[i] for i in used], leaves, grads, retain_graph=True)
        for one, other in zip(got, want):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("decisions", [(0.0, 1.0, 0.0), (0.01, 0.0, 0.0), (0.01, 1.0, 1.0)])
def test_attention_weights_that_read_decisions(decisions):
    penalty, use_positions, uniform = decisions
    q, k = (torch.randn(2, 2, 3, 4, requires_grad=True) for _ in range(2))
    p = torch.randn(2, 2, 3, 2, requires_grad=True)
    pos = torch.randn(2, 5, 2, requires_grad=True)
    mask = torch.tensor([[False, False, False], [False, False, True]]).unsqueeze(1)
    table = torch.zeros(2, 6, dtype=torch.float64)
    table[1, :3] = torch.tensor(decisions)
    args = (q, k, p, pos, mask, 0.5, table, 1)
    torch.library.opcheck(attention._as_drawn_operator, args)
    got = attention.attention_weights_as_drawn(*args)
    want = attention.attention_weights(q, k, p if use_positions else None, pos, mask, 0.5, penalty)
    if uniform:  # over the keys that the first head sees
        want = want[0], torch.where(mask, 0.0, 1.0 / (~mask).sum(-1, keepdim=True)).expand(2, 3, 3)[None]
    leaves, grads = [q, k, p, pos], [torch.randn(x.shape) for x in got]
    for one, other in zip(got, want):
        torch.testing.assert_close(one, other)
    used = range(1 if uniform else 2)  # what is uniform has no gradient
    ours = torch.autograd.grad(got, leaves, grads)
    theirs = torch.autograd.grad(
        [want[i] for i in used], leaves, [grads[i] for i in used], allow_unused=not use_positions
    )
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def same_as_directly(operator, function, args, leaves):
    """The operator passes torch's checks, and gives the values and gradients of the function."""
    torch.library.opcheck(operator, args)
    y, directly = operator(*args), function(*args)
    torch.testing.assert_close(y, directly, rtol=0, atol=0)
    grad = torch.randn(y.shape)
    got, want = torch.autograd.grad(y, leaves, grad), torch.autograd.grad(directly, leaves, grad)
    for one, other in zip(got, want):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("with_bias", [True, False])
def test_convolution_over_time_as_an_operator(with_bias):
    x, weight = torch.randn(9, 2, 3, requires_grad=True), torch.randn(3, 1, 5, requires_grad=True)
    bias = torch.randn(3, requires_grad=True) if with_bias else None
    leaves = [x, weight] + ([bias] if with_bias else [])
    same_as_directly(depthwise._conv1d_operator, depthwise.depthwise_conv1d, (x, weight, bias, 2, 4), leaves)


@pytest.mark.parametrize("lens", [None, [6, 3]])
def test_convolution_over_time_and_frequency_as_an_operator(lens):
    x = torch.randn(2, 3, 6, 4).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(3, 1, 3, 3, requires_grad=True), torch.randn(3, requires_grad=True)
    lens = None if lens is None else torch.tensor(lens)
    same_as_directly(
        depthwise._conv2d_operator,
        depthwise.depthwise_conv2d,
        (x, weight, bias, lens),
        [x, weight, bias],
    )
