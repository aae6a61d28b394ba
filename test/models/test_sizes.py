"""Parameter names, shapes, order and totals are those of the published models."""

from pathlib import Path

import pytest
import torch

from asr_core.models import ModelOptions, build_model
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

TABLES = Path(__file__).parents[1] / "golden" / "state_dicts"
CTC_AED = {"use_ctc": True, "use_attention_decoder": True}


def on_meta(**options):
    with torch.device("meta"):
        return build_model(from_params(ModelOptions, options), vocab_size=500)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "table,options",
    [
        ("small", {"model_size": "small"}),
        ("medium", {}),
        ("large", {"model_size": "large"}),
        ("medium_causal", {"causal": True}),
        ("medium_ctc_aed", CTC_AED),
    ],
)
def test_state_dict(table, options):
    rows = [line.split("\t") for line in (TABLES / f"state_dict_{table}.tsv").read_text().splitlines()]
    mine = [
        [k, "x".join(map(str, v.shape)), str(v.dtype).split(".")[1]]
        for k, v in on_meta(**options).state_dict().items()
    ]
    theirs = [[k, "" if shape in ("scalar", "()") else shape, dtype] for k, shape, dtype in rows]
    assert mine == theirs


@pytest.mark.parametrize(
    "total,options",
    [
        (23_285_615, {"model_size": "small"}),
        (65_549_011, {"model_size": "medium"}),
        (148_439_574, {"model_size": "large"}),
        (66_110_931, {"causal": True}),
        (65_805_511, {"use_ctc": True}),
        (148_824_074, {"model_size": "large", "use_ctc": True}),
        (22_118_279, {"model_size": "small", "use_transducer": False, "use_ctc": True}),
        (64_250_603, {"use_transducer": False, "use_ctc": True}),
        (147_010_094, {"model_size": "large", "use_transducer": False, "use_ctc": True}),
        (46_282_107, {"model_size": "small", "use_transducer": False, **CTC_AED}),
        (89_987_295, {"use_transducer": False, **CTC_AED}),
        (174_319_650, {"model_size": "large", "use_transducer": False, **CTC_AED}),
        (91_542_203, CTC_AED),
    ],
)
def test_totals(total, options):
    assert count(on_meta(**options)) == total


def test_break_down():
    model = on_meta(model_size="small")
    parts = {name: count(child) for name, child in model.named_children()}
    assert parts == {
        "encoder_embed": 611_953,
        "encoder": 21_377_826,
        "decoder": 260_096,
        "joiner": 650_740,
        "simple_am_proj": 128_500,
        "simple_lm_proj": 256_500,
    }


def test_options_besides_a_preset_win():
    model = on_meta(model_size="small", encoder_dim="192,256,256,256,256,192")
    assert model.encoder.encoder_dim == (192, 256, 256, 256, 256, 192)
    assert model.encoder.num_encoder_layers == (2,) * 6


@pytest.mark.parametrize(
    "options,message",
    [
        ({"encoder_dim": "192,256"}, "--encoder-dim has 2 entries"),
        ({"encoder_dim": "192,abc"}, "expected integers separated by commas"),
        ({"cnn_module_kernel": "30"}, "must be odd"),
        ({"use_transducer": False}, "nothing to train"),
        ({"model_size": "huge"}, "unknown --model-size"),
        ({"encoder_unmasked_dim": "200"}, "larger than encoder_dim"),
        ({"context_size": 0}, "--context-size"),
        ({**CTC_AED, "attention_decoder_num_heads": 7}, "7 heads cannot share an attention of width 512"),
        ({**CTC_AED, "attention_decoder_dim": 5}, "even size"),
        ({**CTC_AED, "attention_decoder_num_layers": 0}, "must be at least 1"),
        (
            {"intermediate_ctc_stacks": "2,7"},
            "--intermediate-ctc-stacks 2,7: the encoder has stacks 1 to 6, not 7",
        ),
        (
            {"intermediate_ctc_stacks": "two"},
            "--intermediate-ctc-stacks: expected integers separated by commas, got 'two'",
        ),
        ({"causal": True, "chunk_size": "16,20"}, "cannot be divided by the downsampling factor 8"),
        ({"causal": True, "left_context_frames": "64,32"}, "--left-context-frames must be at least 56"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        on_meta(**options)


def test_explicit_values_win_over_a_preset_even_if_they_are_the_defaults():
    given = {"model_size": "tiny", "joiner_dim": 512, "num_encoder_layers": "2,2,3,4"}
    opts = from_params(ModelOptions, given)
    assert (opts.joiner_dim, opts.num_encoder_layers) == (512, (2, 2, 3, 4))
    assert (opts.decoder_dim, opts.encoder_dim, opts.model_size) == (128, (96, 128, 128, 128), "")
    with pytest.raises(ValueError, match="from_params"):
        build_model(ModelOptions(model_size="tiny"), vocab_size=500)
