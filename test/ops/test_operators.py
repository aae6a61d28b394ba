"""Operators pass torch's own checks of schema, fake results and gradients."""

import torch

from asr_core.ops import swoosh


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
