"""The checks of numbers and the statistics of layers pass over every encoder and head."""

import pytest
import torch
from tiny_encoders import TINY

from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.training.health.diagnostics import diagnose
from asr_core.training.health.inf_check import InfCheck
from asr_core.utils.options import from_params

HEADS = {"decoder_dim": 8, "joiner_dim": 8, "use_ctc": True}
CASES = [
    *((kind, {"causal": False} if "causal" in sizes else {}) for kind, sizes in TINY.items()),
    ("zipformer", {"causal": True}),
    ("zipformer", {"causal": False, "loss": "full", "predictor": "lstm"}),
]


def model_of(kind, options):
    torch.manual_seed(0)
    model = build_model(from_params(options_class(kind), {**HEADS, **TINY[kind], **options}), vocab_size=7)
    return model.train()


def loss_of(model):
    x = torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(1))
    losses = model(x, torch.tensor([90, 71]), [[3, 4], [5]])
    return sum(loss for loss in losses if loss is not None)


@pytest.mark.parametrize("kind, options", CASES)
def test_checks_and_statistics(kind, options, tmp_path):
    model = model_of(kind, options)
    check = InfCheck(model)
    for _ in range(4):  # balancers and layer skipping are drawn
        check.new_step()
        loss_of(model).backward()
        assert check.found == {}
    next(p for p in model.encoder.parameters() if p.grad is not None).data.fill_(float("nan"))
    check.new_step()
    loss_of(model).backward()
    assert check.found["output"].startswith("encoder")
    check.remove()
    model = model_of(kind, options)
    diagnose(model, (loss_of(model) for _ in range(2)), tmp_path / "diagnostics.txt")
    text = (tmp_path / "diagnostics.txt").read_text(encoding="utf-8")
    assert "encoder.output, axis" in text or "encoder[0].output, axis" in text
    assert "encoder_embed" in text and ".grad, axis" in text
