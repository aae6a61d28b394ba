"""Encoders on devices whose values the host does not know, or does not know yet."""

import contextlib
import random

import pytest
import torch
from tiny_encoders import TINY, model_of

from asr_core.nn.scaling import set_batch_count


@pytest.mark.parametrize("causal", [True, False])
def test_a_training_step_of_zipformer_never_asks_for_a_value(causal, monkeypatch):
    """Tensors without data refuse every question, e.g. whether a batch has padding."""
    monkeypatch.setitem(TINY["zipformer"], "causal", causal)
    model = model_of("zipformer").train().to("meta")
    model.encoder.chunk_size, model.encoder.left_context_frames = (16, -1), (32, -1)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)  # it knows no such device
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    with pytest.raises(RuntimeError):
        bool(torch.ones((), device="meta"))
    for seed in range(6):  # which modules act is drawn
        random.seed(seed)
        set_batch_count(model, 0.0 if seed % 2 else 30_000.0)
        x, lens = torch.randn(2, 150, 80, device="meta"), torch.ones(2, dtype=torch.int64, device="meta")
        y, y_lens = model.forward_encoder(x, lens)
        y.sum().backward()
        assert y.shape[:2] == (2, 36) and y_lens.is_meta
        for module in model.modules():  # what whitening finds out is asked for by the next step
            if hasattr(module, "max_prob"):
                module.prob = module.max_prob


@pytest.mark.parametrize("causal", [True, False])
def test_compilers_and_exporters_trace_zipformer_as_a_whole(causal, monkeypatch):
    monkeypatch.setitem(TINY["zipformer"], "causal", causal)
    model, nodes = model_of("zipformer"), []

    def look(graph, _):
        nodes.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    x, lens = torch.randn(2, 90, 80), torch.tensor([90, 61])
    want = model.forward_encoder(x, lens)
    compiled = torch.compile(model.forward_encoder, backend=look, fullgraph=True)
    exported = torch.export.export(Encoder(model), (x, lens)).module()
    for got in (compiled(x, lens), exported(x, lens)):
        torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-5)
        assert torch.equal(got[1], want[1])
    for kernel in ("attention_weights", "depthwise_conv1d", "depthwise_conv2d", "activation_linear"):
        assert any(f"asr_core.{kernel}" in node for node in nodes), kernel


class Encoder(torch.nn.Module):
    """The part of a model that encodes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, x_lens):
        return self.model.forward_encoder(x, x_lens)
