"""Weights for other tokens: each row belongs to the same piece as before, all heads included."""

import pytest
import torch
from tiny import OPTIONS

from asr_core.models.build import build_model
from asr_core.models.options import ModelOptions
from asr_core.models.token_rows import match_tokens, token_dims
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

HEADS = {
    "use_ctc": True,
    "use_attention_decoder": True,
    "attention_decoder_dim": 16,
    "attention_decoder_num_layers": 1,
    "attention_decoder_num_heads": 2,
    "attention_decoder_attention_dim": 16,
    "attention_decoder_feedforward_dim": 16,
    "intermediate_ctc_stacks": "1",
}
OLD = ["<blk>", "<sos/eos>", "<unk>", "\u2581a", "b", "c", "\u2581d"]
NEW = ["<blk>", "<sos/eos>", "<unk>", "c", "x", "\u2581a"]


def model_of(size, **options):
    return build_model(from_params(ModelOptions, {**OPTIONS, **HEADS, **options}), size)


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
def test_rows_follow_their_pieces(predictor):
    old, new, larger = (model_of(size, predictor=predictor).state_dict() for size in (7, 6, 7))
    dims = token_dims(new, larger)
    with_bias = [
        "simple_am_proj",
        "simple_lm_proj",
        "joiner.output_linear",
        "ctc_output.1",
        "attention_decoder.decoder.output_layer",
        "intermediate_ctc.output.0.1",
    ]
    expected = {f"{module}.{kind}" for module in with_bias for kind in ("weight", "bias")}
    expected |= {"decoder.embedding.weight", "attention_decoder.decoder.embed.weight"}
    assert set(dims) == expected and set(dims.values()) == {0}
    matched, number = match_tokens(old, new, dims, OLD, NEW)
    assert number == 5
    for name, value in matched.items():
        if name not in dims:
            assert torch.equal(value, old[name])
            continue
        for row, piece in enumerate(NEW):
            expected_row = old[name][OLD.index(piece)] if piece in OLD else new[name][row]
            assert torch.equal(value[row], expected_row), (name, piece)
    model_of(6, predictor=predictor).load_state_dict(matched)


def test_weights_of_another_number_of_tokens():
    old, new, larger = (model_of(size).state_dict() for size in (7, 6, 7))
    with pytest.raises(UserError, match="is not of 6 tokens"):
        match_tokens(old, new, token_dims(new, larger), OLD[:6], NEW)
