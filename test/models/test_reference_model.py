"""The whole model against the reference's arrays."""

import math

import pytest
import torch

TAGS = ["noncausal", "causal_chunk16_left64"]


def build(golden, tag):
    """The model that sees the padding, as the reference's does."""
    return golden.noncausal(False) if tag == "noncausal" else golden.causal(mask_padding=False)


def assert_valid_close(mine, theirs, lens, tol=1e-4):
    for i, n in enumerate(lens.tolist()):
        torch.testing.assert_close(mine[i, :n], theirs[i, :n], atol=tol, rtol=tol)


@pytest.mark.parametrize("tag", TAGS)
def test_offline(golden, tag):
    model = build(golden, tag)
    x, x_lens = golden.tensor("x"), golden.tensor("x_lens")
    with torch.no_grad():
        frames, frame_lens = model.encoder_embed(x, x_lens)
        out, out_lens = model.forward_encoder(x, x_lens)
    assert frame_lens.tolist() == golden.tensor(f"{tag}/encoder_embed_lens").tolist()
    assert_valid_close(frames, golden.tensor(f"{tag}/encoder_embed_out"), frame_lens)
    assert out_lens.tolist() == golden.tensor(f"{tag}/encoder_out_lens").tolist()
    assert_valid_close(out, golden.tensor(f"{tag}/encoder_out"), out_lens)


@pytest.mark.parametrize(
    "name,chunk,left", [("causal_full_context", -1, -1), ("causal_chunk8_left32", 8, 32)]
)
def test_other_chunks(golden, name, chunk, left):
    for model, rows in ((golden.causal(mask_padding=False), 3), (golden.causal(), 1)):
        model.set_chunk(chunk, left)
        with torch.no_grad():
            out, lens = model.forward_encoder(golden.tensor("x"), golden.tensor("x_lens"))
        assert_valid_close(out, golden.tensor(f"{name}/encoder_out"), lens[:rows])


@pytest.mark.parametrize("tag", TAGS)
def test_the_longest_utterance_without_the_padding_of_the_others(golden, tag):
    model = golden.noncausal() if tag == "noncausal" else golden.causal()
    x, x_lens = golden.tensor("x"), golden.tensor("x_lens")
    assert x_lens[0] == x.size(1)
    for rows in (1, len(x)):
        with torch.no_grad():
            out, lens = model.forward_encoder(x[:rows], x_lens[:rows])
        assert_valid_close(out, golden.tensor(f"{tag}/encoder_out"), lens[:1])


@pytest.mark.parametrize("tag", TAGS)
def test_heads(golden, tag):
    model = build(golden, tag)
    encoder_out = golden.tensor(f"{tag}/encoder_out")
    with torch.no_grad():
        decoder_out = model.decoder(golden.tensor(f"{tag}/decoder_in"), need_pad=False)
        logits = model.joiner(encoder_out[:, 0], golden.tensor(f"{tag}/decoder_out")[:, 0])
        log_probs = model.ctc_output(encoder_out)
    torch.testing.assert_close(decoder_out, golden.tensor(f"{tag}/decoder_out"), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, golden.tensor(f"{tag}/joiner_out"), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(log_probs, golden.tensor(f"{tag}/ctc_log_probs"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tag", TAGS)
def test_losses(golden, tag):
    model = build(golden, tag)
    x, x_lens, y = golden.tensor("x"), golden.tensor("x_lens"), golden.meta["labels"]
    with torch.no_grad():
        total = model(x, x_lens, y, prune_range=5, am_scale=0.0, lm_scale=0.25)
        each = model(x, x_lens, y, prune_range=5, am_scale=0.0, lm_scale=0.25, reduction="none")
    for name in ("simple_loss", "pruned_loss", "ctc_loss"):
        mine = getattr(total, name)
        torch.testing.assert_close(mine, golden.tensor(f"{tag}/{name}_sum"), atol=1e-4, rtol=1e-4, msg=name)
        assert getattr(each, name).shape == (len(y),)
        torch.testing.assert_close(getattr(each, name).sum(), mine, atol=1e-4, rtol=1e-5)


def feed(model, x):
    """Feed one utterance (T, F) chunk by chunk, the last chunk filled up with silence; returns the
    output and the states.
    """
    states = model.get_init_states()
    window, step = model.window_frames, model.chunk_frames
    outs = []
    for begin in range(0, x.size(0), step):
        chunk = x[begin : begin + window]
        chunk = torch.cat([chunk, torch.full((window - chunk.size(0), x.size(1)), math.log(1e-10))])
        out, lens, states = model.streaming_forward(chunk.unsqueeze(0), torch.tensor([window]), states)
        assert lens.tolist() == [out.size(1)]
        outs.append(out)
    return torch.cat(outs, dim=1), states


def test_streaming(golden):
    model = golden.causal()
    with torch.no_grad():
        out, states = feed(model, golden.tensor("x")[0])
    prefix = "streaming_chunk16_left64"
    torch.testing.assert_close(out, golden.tensor(f"{prefix}/encoder_out"), atol=1e-4, rtol=1e-4)
    names = [n for n in golden.arrays.files if n.startswith(f"{prefix}/final_state")]
    assert len(names) == len(states)
    for name, state in zip(names, states):
        torch.testing.assert_close(
            state,
            golden.tensor(name).to(state.dtype),
            atol=1e-4,
            rtol=1e-4,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_streaming_equals_masked_offline(golden):
    model = golden.causal()
    x = golden.tensor("x")[:1]
    with torch.no_grad():
        offline, _ = model.forward_encoder(x, torch.tensor([x.size(1)]))
        streamed, _ = feed(model, x[0])
    whole = (((x.size(1) - 7) // 2) // 16 - 1) * 8  # the last chunk attends to the silence that fills it
    torch.testing.assert_close(streamed[:, :whole], offline[:, :whole], atol=1e-5, rtol=1e-4)
