"""Operators pass torch's own checks of schema, fake results and gradients."""

import pytest
import torch

from asr_core.ops import attention, swoosh


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
