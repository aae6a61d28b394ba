"""Models with CTC and attention decoder: their exports load and compute what the eager model does."""

import pytest
import torch
from tiny import OPTIONS, PIECES

from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.registry import check_head, get_method
from asr_core.export.loading import load_for_inference
from asr_core.export.pretrained import save_pretrained
from asr_core.export.torchscript import load_torchscript, save_torchscript, script_model
from asr_core.models.build import build_model
from asr_core.models.checkpoint import load_checkpoint_file, model_from_checkpoint
from asr_core.models.options import ModelOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, record_of

HEADS = dict(
    use_ctc=True,
    use_attention_decoder=True,
    attention_decoder_dim=16,
    attention_decoder_num_layers=2,
    attention_decoder_attention_dim=16,
    attention_decoder_num_heads=2,
    attention_decoder_feedforward_dim=24,
)


def model_of(**options):
    torch.manual_seed(0)
    return build_model(
        from_params(ModelOptions, {**OPTIONS, **HEADS, **options}), vocab_size=len(PIECES)
    ).eval()


def batch():
    return torch.randn(2, 121, 80, generator=torch.Generator().manual_seed(1)), torch.tensor([121, 83])


@pytest.mark.parametrize(
    "options", [dict(use_transducer=False), dict(), dict(use_transducer=False, use_attention_decoder=False)]
)
@torch.no_grad()
def test_torchscript_equals_eager(tmp_path, options):
    model = model_of(**options)
    save_torchscript(script_model(model, streaming=False), tmp_path / "jit_script.pt", {}, PIECES)
    module = torch.jit.load(str(tmp_path / "jit_script.pt"))
    children = {name for name, _ in module.named_children()}
    assert {"encoder_embed", "encoder", "ctc_output"} <= children
    assert ("attention_decoder" in children) == model.use_attention_decoder and (
        "joiner" in children
    ) == model.use_transducer
    scripted = load_torchscript(tmp_path / "jit_script.pt")
    x, x_lens = batch()
    out, lens = scripted.forward_encoder(x, x_lens)
    expected, _ = model.forward_encoder(x, x_lens)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scripted.ctc_output(expected), model.ctc_output(expected))
    assert [[h.tokens for h in n] for n in ctc_prefix_beam_search(scripted, expected, lens)] == [
        [h.tokens for h in n] for n in ctc_prefix_beam_search(model, expected, lens)
    ]
    if model.use_attention_decoder:
        sentences = [[3, 5, 2], []]
        for _ in range(3):  # later calls run optimised
            nll = scripted.attention_decoder.nll(expected, lens, sentences)
        torch.testing.assert_close(nll, model.attention_decoder.nll(expected, lens, sentences))
        loss = scripted.attention_decoder(expected, lens, sentences)
        torch.testing.assert_close(loss, model.attention_decoder(expected, lens, sentences))


@torch.no_grad()
def test_pretrained_and_what_can_be_searched(tmp_path):
    model = model_of(use_transducer=False)
    params = {
        **record_of(from_params(ModelOptions, {**OPTIONS, **HEADS, "use_transducer": False})),
        "num_mel_bins": 80,
    }
    save_pretrained(model, params, tmp_path / "pretrained.pt")
    save_torchscript(script_model(model, streaming=False), tmp_path / "jit_script.pt", {}, PIECES)
    again = model_from_checkpoint(load_checkpoint_file(tmp_path / "pretrained.pt"), {})
    assert again.use_attention_decoder and all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values())
    )
    (tmp_path / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES)))
    for name in ("pretrained.pt", "jit_script.pt"):
        loaded = load_for_inference(str(tmp_path / name)).model
        assert loaded.vocab_size == len(PIECES)
        check_head(loaded, get_method("ctc-greedy-search"))
        with pytest.raises(UserError, match="no transducer, which --decoding-method greedy_search"):
            check_head(loaded, get_method("greedy_search"))
    with pytest.raises(UserError, match="no CTC head, which --decoding-method ctc-prefix-beam-search"):
        check_head(model_of(use_ctc=False), get_method("ctc-prefix-beam-search"))


def test_another_torchscript_file_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "other.pt"))
    with pytest.raises(UserError, match="not an exported model"):
        load_torchscript(tmp_path / "other.pt")
