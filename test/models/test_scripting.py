"""A stripped model can be scripted, and computes the same."""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from asr_core.nn.scaling import Balancer, Dropout3, ScaleGrad, Whiten, strip_training_modules


class Stream(nn.Module):
    """Both halves of a streaming encoder, as an export would hold them."""

    def __init__(self, model) -> None:
        super().__init__()
        self.encoder_embed = model.encoder_embed
        self.encoder = model.encoder

    def forward(
        self, x: Tensor, x_lens: Tensor, embed_state: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, Tensor, List[Tensor]]:
        x, x_lens, embed_state = self.encoder_embed.streaming_forward(x, x_lens, embed_state)
        x, x_lens, states = self.encoder.streaming_forward(x, x_lens, states)
        return x, x_lens, embed_state, states

    @torch.jit.export
    def get_init_states(self, batch_size: int = 1) -> List[Tensor]:
        return self.encoder.get_init_states(batch_size) + [self.encoder_embed.get_init_states(batch_size)]


def test_strip_leaves_nothing_of_training(golden):
    model = strip_training_modules(golden.noncausal())
    assert not any(isinstance(m, (Balancer, Whiten, Dropout3, ScaleGrad)) for m in model.modules())
    assert not model.training


def test_whole_utterances(golden):
    x, x_lens = golden.tensor("x"), golden.tensor("x_lens")
    for model in (golden.noncausal(), golden.causal(-1, -1)):
        with torch.no_grad():
            expected, lens = model.forward_encoder(x, x_lens)
            strip_training_modules(model)
            embed, encoder = torch.jit.script(model.encoder_embed), torch.jit.script(model.encoder)
            for _ in range(2):  # the second call runs optimised
                out, out_lens = encoder(*embed(x, x_lens))
        assert torch.equal(lens, out_lens)
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_long_utterances_extend_the_positional_table(golden):
    model = strip_training_modules(golden.noncausal())
    x = torch.randn(1, 2300, 80)
    lens = torch.tensor([2300])
    with torch.no_grad():
        scripted = torch.jit.script(model.encoder)(*model.encoder_embed(x, lens))[0]
        torch.testing.assert_close(scripted, model.forward_encoder(x, lens)[0], atol=1e-3, rtol=1e-3)


def test_streams(golden):
    model = golden.causal()
    x = golden.tensor("x")[:2, : model.window_frames]
    lens = torch.tensor([model.window_frames] * 2)
    with torch.no_grad():
        states = model.get_init_states(2)
        for _ in range(3):
            expected, _, states = model.streaming_forward(x, lens, states)
        scripted = torch.jit.script(Stream(strip_training_modules(model)))
        states = scripted.get_init_states(2)
        embed_state, states = states[-1], states[:-1]
        for _ in range(3):
            out, _, embed_state, states = scripted(x, lens, embed_state, states)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_decoder_and_joiner(golden):
    model = strip_training_modules(golden.noncausal())
    decoder, joiner = torch.jit.script(model.decoder), torch.jit.script(model.joiner)
    y = golden.tensor("noncausal/decoder_in")
    with torch.no_grad():
        assert torch.equal(decoder(y, False), model.decoder(y, need_pad=False))
        assert decoder(y, True).shape == (3, 2, 24)
        assert (decoder.context_size, decoder.blank_id, decoder.vocab_size) == (2, 0, 17)
        e, d = torch.randn(3, 48), torch.randn(3, 24)
        assert torch.equal(joiner(e, d, True), model.joiner(e, d))
        projected = joiner(joiner.encoder_proj(e), joiner.decoder_proj(d), False)
    torch.testing.assert_close(projected, model.joiner(e, d).detach())
