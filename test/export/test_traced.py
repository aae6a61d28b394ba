"""Traced files of a streaming transducer: the same answers, whatever the encoder, and mistakes told
in a line.
"""

import json

import pytest
import torch
from tiny import PIECES, write_audio

from asr_core.bin import export, jit_trace_export, jit_trace_pretrained, transcribe
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.export.pretrained import model_info
from asr_core.export.traced import FILES, export_traced, load_traced
from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.options import from_params, record_of

SELECT = ["--epoch", "1", "--avg", "1", "--use-averaged-model", "0"]
CHUNKS = ["--chunk-size", "16", "--left-context-frames", "32"]
SMALL = {
    "conformer": {
        "num_encoder_layers": 1,
        "encoder_dim": 16,
        "nhead": 2,
        "feedforward_dim": 24,
        "front_end_channels": 4,
        "causal": True,
    },
    "lstm": {"num_encoder_layers": 1, "encoder_dim": 16, "rnn_hidden_size": 20, "dim_feedforward": 24},
}


def write_run(exp_dir, encoder="conformer", seed=0, **options):
    """An experiment's folder, as training leaves it; returns the model, which emits many tokens on
    noise.
    """
    opts = from_params(
        options_class(encoder), {"decoder_dim": 16, "joiner_dim": 16, **SMALL[encoder], **options}
    )
    torch.manual_seed(seed)
    model = build_model(opts, len(PIECES)).eval()
    with torch.no_grad():
        model.joiner.output_linear.weight.normal_()
    exp_dir.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"model": model.state_dict(), **record_of(opts), "vocab_size": len(PIECES)},
        exp_dir / "epoch-1.pt",
    )
    (exp_dir / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES)))
    return model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A causal model's folder with its traced files."""
    exp_dir = tmp_path_factory.mktemp("traced")
    write_run(exp_dir)
    jit_trace_export.main(argv=[*SELECT, "--exp-dir", str(exp_dir), *CHUNKS])
    return exp_dir


def arguments(folder, **others):
    files = {**{part: folder / name for part, name in FILES.items()}, **others}
    return [word for part, path in files.items() for word in (f"--{part}-model-filename", str(path))]


def told(capsys, main, *argv):
    capsys.readouterr()
    main(argv=["--num-threads", "1", *map(str, argv)])
    return capsys.readouterr().out


def refusal(capsys, main, *argv):
    with pytest.raises(SystemExit) as stop:
        main(argv=list(map(str, argv)))
    assert stop.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_files_transcribe_as_the_model_does(run, tmp_path, capsys):
    files = write_audio(tmp_path)
    expected = told(capsys, transcribe.main, "--model", run / "epoch-1.pt", *CHUNKS, *files)
    assert "W" in expected
    assert (
        told(capsys, jit_trace_pretrained.main, *arguments(run), "--decode-chunk-len", 32, *files) == expected
    )
    assert (
        told(capsys, jit_trace_pretrained.main, *arguments(run), "--bpe-model", run / "tokens.txt", *files)
        == expected
    )


def test_layout(run):
    extra = {"asr_core.json": ""}
    encoder, decoder, joiner = (
        torch.jit.load(str(run / name), _extra_files=extra) for name in FILES.values()
    )
    states = encoder.get_init_states(1, torch.device("cpu"))
    window = 32 + json.loads(extra["asr_core.json"])["geometry"][3]
    out, lens, new_states = encoder(
        torch.rand(1, window, 80), torch.tensor([window], dtype=torch.int32), states
    )
    assert out.shape[:2] == (1, 8) and lens.tolist() == [8] and len(new_states) == len(states)
    decoder_out = decoder(torch.tensor([[0, 3]]), torch.tensor([False]))
    assert joiner(out[:, 0], decoder_out.squeeze(1)).shape == (1, len(PIECES))


@pytest.mark.parametrize(
    "encoder, method, options",
    [
        ("conformer", "modified_beam_search", {}),
        ("conformer", "fast_beam_search", {}),
        (
            "conformer",
            "greedy_search",
            {"transducer_type": "hat", "joiner_mode": "gated", "blank_logit_bias": -20.0},
        ),
        ("conformer", "greedy_search", {"joiner_mode": "multiply", "blank_logit_bias": -20.0}),
        ("lstm", "modified_beam_search", {"transducer_type": "hat", "blank_logit_bias": -20.0}),
        ("lstm", "fast_beam_search", {}),
    ],
)
def test_streams_at_once(encoder, method, options, tmp_path):
    model = write_run(tmp_path, encoder, **options)
    model.set_chunk(8, 32)
    paths = export_traced(model, tmp_path, model_info(model, {"encoder": encoder}), PIECES)
    features = [3 * torch.randn(n, 80) - 8 for n in (150, 97, 61)]

    def found(which):
        streams = StreamBatch(which, streaming_search(which, SearchOptions(decoding_method=method)), 8)
        return {key: hypothesis.tokens for key, hypothesis in decode_streams(streams, enumerate(features), 2)}

    expected = found(model)
    assert found(load_traced(*paths)) == expected and sum(map(len, expected.values())) > 10


def test_mistakes(run, tmp_path, capsys):
    main = jit_trace_pretrained.main
    assert "--decoder-model-filename" in refusal(capsys, main, *arguments(run, decoder=""), "x.wav")
    assert "cannot read" in refusal(capsys, main, *arguments(run, joiner=tmp_path / "none.pt"), "x.wav")
    refused = refusal(capsys, main, *arguments(run), "--decode-chunk-len", 64, "x.wav")
    assert "--decode-chunk-len 64 (chunks of 32 frames): " in refused
    assert "exported for chunks of 16 frames" in refused
    assert "an even number" in refusal(capsys, main, *arguments(run), "--decode-chunk-len", 33, "x.wav")
    swapped = arguments(run, encoder=run / FILES["joiner"], joiner=run / FILES["encoder"])
    assert "not, in this order" in refusal(capsys, main, *swapped, "x.wav")
    write_run(tmp_path / "other", seed=3)
    jit_trace_export.main(
        argv=[
            *SELECT,
            "--exp-dir",
            str(tmp_path / "other"),
            "--chunk-size",
            "32",
            "--left-context-frames",
            "64",
        ]
    )
    assert "not of one model" in refusal(
        capsys, main, *arguments(run, encoder=tmp_path / "other" / FILES["encoder"]), "x.wav"
    )


def test_models_that_cannot_be_traced(tmp_path, capsys):
    write_run(tmp_path, causal=False)
    where = [*SELECT, "--exp-dir", tmp_path]
    assert "not causal" in refusal(capsys, jit_trace_export.main, *where, *CHUNKS)
    write_run(tmp_path, predictor="lstm")
    assert "LSTM prediction network" in refusal(capsys, jit_trace_export.main, *where, *CHUNKS)
    assert "limited --chunk-size" in refusal(
        capsys, jit_trace_export.main, *where, "--chunk-size", -1, "--left-context-frames", -1
    )


def test_the_name_of_a_script_may_be_another(tmp_path):
    write_run(tmp_path)
    export.main(argv=[*SELECT, "--exp-dir", str(tmp_path), "--jit", "1", *CHUNKS], script_name="cpu_jit.pt")
    assert (tmp_path / "cpu_jit.pt").is_file() and not list(tmp_path.glob("jit_script*"))
