"""The checks of numbers and the statistics of layers pass over every encoder and head."""

import pytest
import torch

from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.training.health.diagnostics import diagnose
from asr_core.training.health.inf_check import InfCheck
from asr_core.utils.options import from_params

HEADS = {"decoder_dim": 8, "joiner_dim": 8, "use_ctc": True}
ENCODERS = {
    "zipformer": {
        "num_encoder_layers": "1,1",
        "downsampling_factor": "1,2",
        "encoder_dim": "16,24",
        "encoder_unmasked_dim": "12",
        "feedforward_dim": "16",
        "num_heads": "2",
        "query_head_dim": "4",
        "value_head_dim": "4",
        "pos_dim": 8,
        "cnn_module_kernel": "7",
    },
    "conformer": {"num_encoder_layers": 1, "encoder_dim": 16, "nhead": 2, "feedforward_dim": 24},
    "contextnet": {"block_channels": "16,24", "block_layers": "1,2", "block_strides": "2"},
    "lstm": {"num_encoder_layers": 1, "encoder_dim": 16, "rnn_hidden_size": 20, "dim_feedforward": 24},
    "zipformer1": {
        "num_encoder_layers": "1,1",
        "feedforward_dims": "24",
        "nhead": "2",
        "encoder_dims": "16,16",
        "attention_dims": "16",
        "encoder_unmasked_dims": "12",
        "zipformer_downsampling_factors": "1,2",
        "cnn_module_kernels": "5",
    },
}
CASES = [
    *((kind, {}) for kind in ENCODERS),
    ("zipformer", {"causal": True}),
    ("zipformer", {"loss": "full", "predictor": "lstm"}),
]


def model_of(kind, options):
    torch.manual_seed(0)
    model = build_model(
        from_params(options_class(kind), {**HEADS, **ENCODERS[kind], **options}), vocab_size=7
    )
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
