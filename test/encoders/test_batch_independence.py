"""An utterance is encoded alike alone and among others, whatever the padding holds: every encoder and
front end, whole, in chunks, streaming, scripted and traced.
"""

import pytest
import torch
from tiny_encoders import TINY

from asr_core.export.torchscript import StreamingEncoder, inference_copy, script_model
from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.nn.batch_norm import MaskedBatchNorm1d
from asr_core.utils.options import from_params

LENS = (151, 130, 101, 66, 41, 22, 15)  # of odd and even numbers of frames at every rate
HEADS = {"decoder_dim": 8, "joiner_dim": 8}
ZIPFORMER = {
    **TINY["zipformer"],
    "num_encoder_layers": "1,2,1",
    "downsampling_factor": "1,2,4",
    "encoder_dim": "16,24,20",
    "cnn_module_kernel": "7,15,5",
    "causal": False,
}
ZIPFORMER1 = TINY["zipformer1"]
CONFORMER = {**TINY["conformer"], "causal": False}
CONTEXTNET = {"block_channels": "16,16,24", "block_layers": "1,2,1", "block_strides": "2"}
LSTM = TINY["lstm"]
CAUSAL = {"causal": True}
WHOLE = {"chunk_size": "-1", "left_context_frames": "-1"}
CHUNKS = {"chunk_size": "12", "left_context_frames": "24"}
MODELS = {
    "zipformer": ("zipformer", {**ZIPFORMER, **WHOLE}),
    "zipformer-causal": ("zipformer", {**ZIPFORMER, **CAUSAL, **WHOLE}),
    "zipformer-chunks": (
        "zipformer",
        {**ZIPFORMER, **CAUSAL, "chunk_size": "32", "left_context_frames": "64"},
    ),
    "zipformer1": ("zipformer1", {**ZIPFORMER1, **WHOLE}),
    "zipformer1-chunks": ("zipformer1", {**ZIPFORMER1, **CHUNKS}),
    **{
        f"conformer-{front_end}": ("conformer", {**CONFORMER, "front_end": front_end, **WHOLE})
        for front_end in ("conv", "narrow", "stack", "vgg-stack")
    },
    "conformer-chunks": ("conformer", {**CONFORMER, **CAUSAL, **CHUNKS}),
    "contextnet": ("contextnet", {**CONTEXTNET, "padding": "same", **WHOLE}),
    "contextnet-causal": ("contextnet", {**CONTEXTNET, **CAUSAL, **CHUNKS}),
    "lstm": ("lstm", {**LSTM, **CHUNKS}),
}
STREAMING = {  # the chunk is a multiple of what each encoder needs
    "zipformer": ("zipformer", {**ZIPFORMER, **CAUSAL, "chunk_size": "8", "left_context_frames": "32"}),
    **{name: MODELS[name] for name in ("zipformer1-chunks", "conformer-chunks", "contextnet-causal", "lstm")},
}


def lively(kind, options):
    """A small model whose weights, scales and statistics all count, in double precision."""
    torch.manual_seed(0)
    model = build_model(from_params(options_class(kind), {**HEADS, **options}), vocab_size=7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
        for module in model.modules():
            if isinstance(module, MaskedBatchNorm1d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.double().eval()


def batch(padding):
    """Utterances of different lengths whose padding is made by ``padding``."""
    x = torch.randn(len(LENS), max(LENS), 80, generator=torch.Generator().manual_seed(1)).double()
    beyond = torch.arange(max(LENS)) >= torch.tensor(LENS).unsqueeze(1)
    return torch.where(beyond.unsqueeze(2), padding(x), x), torch.tensor(LENS)


def assert_alone_equals_together(encode):
    """Compare each utterance's output alone with that among the others and all kinds of padding."""
    for padding in (torch.zeros_like, lambda x: torch.full_like(x, -23.0), lambda x: torch.rand_like(x) * 50):
        x, lens = batch(padding)
        together, together_lens = encode(x, lens)
        for row, length in enumerate(LENS):
            alone, alone_lens = encode(x[row : row + 1, :length], lens[row : row + 1])
            count = int(alone_lens[0])
            assert count == together_lens[row] == alone.size(1)
            torch.testing.assert_close(together[row, :count], alone[0], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_whole_utterances(name):
    assert_alone_equals_together(lively(*MODELS[name]).forward_encoder)


@pytest.mark.parametrize(
    "name", ["zipformer", "zipformer-causal", "zipformer1", "conformer-narrow", "contextnet", "lstm"]
)
@torch.no_grad()
def test_scripted(name):
    model = lively(*MODELS[name])
    encode = script_model(model, streaming=False).encoder
    assert_alone_equals_together(encode)
    if name != "zipformer1":  # whose eager model has chunks by default
        x, lens = batch(torch.zeros_like)
        model.set_chunk(-1, -1)
        for scripted, eager in zip(encode(x, lens), model.forward_encoder(x, lens)):
            torch.testing.assert_close(scripted, eager)


def streamed(step, model, x, lens):
    """The output of windows one after another, as long as the longest stream lasts."""
    states = [s.double() if s.is_floating_point() else s for s in model.get_init_states(len(x))]
    outs, out_lens = [], 0
    for begin in range(0, int(lens.max()) - model.geometry.look_ahead, model.chunk_frames):
        window = x[:, begin : begin + model.window_frames]
        missing = model.window_frames - window.size(1)
        window = torch.nn.functional.pad(window, (0, 0, 0, missing))
        valid = (lens - begin).clamp(model.geometry.look_ahead, model.window_frames)
        out, valid, states = step(window, valid, states)
        outs.append(out)
        out_lens = out_lens + valid
    return torch.cat(outs, dim=1), out_lens


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", STREAMING)
@torch.no_grad()
def test_streams(name, traced):
    model = lively(*STREAMING[name])
    step = model.streaming_forward
    if traced:
        frames = torch.tensor([model.window_frames])
        states = [s.double() if s.is_floating_point() else s for s in model.get_init_states()]
        example = torch.randn(1, model.window_frames, 80).double(), frames, states
        encoder = StreamingEncoder(inference_copy(model, streaming=True)).eval()
        step = torch.jit.trace(encoder, example, check_trace=False)
    results = []
    for padding in (torch.zeros_like, lambda x: torch.rand_like(x) * 50):
        x, lens = batch(padding)
        keep = lens > 60
        x, lens = x[keep], lens[keep]
        results.append(streamed(step, model, x, lens))
        for row, length in enumerate(lens.tolist()):
            alone, alone_lens = streamed(step, model, x[row : row + 1, :length], lens[row : row + 1])
            count = int(alone_lens[0])
            assert count == results[-1][1][row]
            torch.testing.assert_close(results[-1][0][row, :count], alone[0, :count], atol=1e-8, rtol=1e-8)
