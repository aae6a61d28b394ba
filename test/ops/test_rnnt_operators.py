"""Compilers and exporters see the RNN-T losses as a few operators, which compute the same."""

import pytest
import torch

from asr_core.ops import rnnt_loss as rnnt
from asr_core.ops.rnnt import traced

BOUNDARY = torch.tensor([[0, 0, 3, 5], [0, 0, 2, 4]])
SYMBOLS = torch.tensor([[1, 2, 3], [4, 4, 0]])


def given():
    torch.manual_seed(0)
    shapes = [(2, 5, 7), (2, 4, 7), (2, 5, 6), (2, 4, 6), (7, 6), (7,)]
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def both_losses(am, lm, encoder, decoder, weight, bias, backend):
    options = dict(boundary=BOUNDARY, rnnt_type="modified", reduction="none", backend=backend)
    options.update(delay_penalty=0.1, fast_emit_lambda=0.2)
    simple, counts = rnnt.rnnt_loss_smoothed(lm, am, SYMBOLS, 0, return_grad=True, **options)
    ranges = rnnt.get_rnnt_prune_ranges(*counts, BOUNDARY, 2, backend=backend)
    inputs = (encoder, decoder, weight, bias, SYMBOLS, ranges, 0)
    return simple + rnnt.rnnt_loss_pruned_projected(*inputs, **options)


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_compiler_sees_one_graph_and_computes_the_same(backend):
    nodes = []

    def look(graph, _):
        nodes.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    compiled = torch.compile(both_losses, backend=look, fullgraph=True)
    inputs = given()
    got, want = compiled(*inputs, backend), both_losses(*inputs, backend)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(x.sum(), inputs) for x in (got, want)]
    for one, other in zip(*grads):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    named = {"rnnt_smoothed", "rnnt_prune_ranges", "rnnt_gather_contexts", "rnnt_pruned"}
    assert named <= {part for node in nodes for part in node.split(".")}


def test_an_exporter_traces_the_losses():
    class Losses(torch.nn.Module):
        def forward(self, *inputs):
            return both_losses(*inputs, "torch")

    inputs = tuple(given())
    exported = torch.export.export(Losses(), inputs)
    want = both_losses(*inputs, "torch")
    torch.testing.assert_close(exported.module()(*inputs), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scales", [(0.0, 0.0), (0.25, 0.1)])
@pytest.mark.parametrize("rnnt_type", ["regular", "constrained"])
def test_smoothed_loss_as_an_operator(rnnt_type, scales):
    am, lm = given()[:2]
    rest = (SYMBOLS, BOUNDARY, 0, rnnt_type, 0.1, scales[0], *scales, "torch")
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(traced._smoothed_operator, (lm, am, *rest), test_utils=checks)


def test_pruned_loss_and_windows_as_operators():
    torch.manual_seed(0)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    lattice = (SYMBOLS, BOUNDARY, 0, "regular", 0.0, 0.1, "torch")
    logits = torch.randn(2, 5, 3, 7, requires_grad=True)
    begin = torch.tensor([[0, 0, 0, 1, 1]] * 2)
    torch.library.opcheck(traced._pruned_operator, (logits, begin, *lattice), test_utils=checks)
    counts = (torch.rand(2, 3, 6), torch.rand(2, 4, 5))
    torch.library.opcheck(traced.prune_ranges, (*counts, BOUNDARY, 2, "torch"), test_utils=checks)
    lm = torch.randn(2, 4, 6, requires_grad=True)
    ranges = begin[:, :, None] + torch.arange(3)
    torch.library.opcheck(traced.gather_contexts, (lm, ranges, "torch"), test_utils=checks)
