import json

import pytest
import soundfile
import torch
from recognition import recognize
from tiny import PIECES, utterances, write_audio, write_run

from asr_core.bin import export, generate_averaged_model, transcribe
from asr_core.decoding.encoding import collate
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.export.torchscript import is_torchscript, load_torchscript
from asr_core.models.checkpoint import load_checkpoint_file, model_from_checkpoint

SELECT = ["--epoch", "1", "--avg", "1", "--use-averaged-model", "0"]
METHODS = ("greedy_search", "modified_beam_search")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """For causal and not: the folder with all exports, and the model."""
    out = {}
    for causal in (False, True):
        exp_dir = tmp_path_factory.mktemp(f"causal-{causal}")
        out[causal] = exp_dir, write_run(exp_dir, causal)
        common = [*SELECT, "--exp-dir", str(exp_dir)]
        export.main(argv=common)
        export.main(argv=[*common, "--jit", "1", "--chunk-size", "-1", "--left-context-frames", "-1"])
        if causal:
            export.main(argv=[*common, "--jit", "1", "--chunk-size", "16", "--left-context-frames", "32"])
    return out


def test_files(runs):
    assert {p.name for p in runs[False][0].iterdir()} == {
        "epoch-1.pt",
        "tokens.txt",
        "pretrained.pt",
        "jit_script.pt",
    }
    assert (runs[True][0] / "jit_script_chunk_16_left_32.pt").is_file()
    assert is_torchscript(runs[False][0] / "jit_script.pt") and not is_torchscript(
        runs[False][0] / "pretrained.pt"
    )


@pytest.mark.parametrize("causal", [False, True])
def test_pretrained_describes_itself(runs, causal):
    exp_dir, model = runs[causal]
    content = load_checkpoint_file(exp_dir / "pretrained.pt")
    assert (content["causal"], content["vocab_size"], content["sample_rate"], content["feature_dim"]) == (
        causal,
        len(PIECES),
        16000,
        80,
    )
    again = model_from_checkpoint(content, {})
    for name, value in model.state_dict().items():
        assert value.equal(again.state_dict()[name])


@pytest.mark.parametrize("name", ["jit_script.pt", "jit_script_chunk_16_left_32.pt"])
def test_layout(runs, name):
    module = torch.jit.load(str(runs[True][0] / name))
    assert [n for n, _ in module.named_children()] == [
        "encoder_embed",
        "encoder",
        "decoder",
        "joiner",
        "simple_am_proj",
        "simple_lm_proj",
    ]
    assert (module.decoder.blank_id, module.decoder.context_size, module.decoder.vocab_size) == (
        0,
        2,
        len(PIECES),
    )
    if "chunk" in name:
        assert (module.encoder.chunk_size, module.encoder.left_context_len, module.encoder.pad_length) == (
            16,
            32,
            13,
        )
        assert len(module.encoder.get_init_states(2, torch.device("cpu"))) == 6 * 3 + 2
    assert load_torchscript(runs[True][0] / name).pieces == PIECES


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("causal", [False, True])
def test_offline_script_equals_eager(runs, causal, method):
    exp_dir, model = runs[causal]
    model.set_chunk(-1, -1)
    scripted = load_torchscript(exp_dir / "jit_script.pt")
    x, lens = collate(utterances(8))
    with torch.inference_mode():
        eager, scripted_out = (
            model.forward_encoder(x, lens.clamp(min=9)),
            scripted.forward_encoder(x, lens.clamp(min=9)),
        )
    torch.testing.assert_close(eager[0], scripted_out[0], rtol=1e-3, atol=1e-3)
    opts = SearchOptions(decoding_method=method)
    one, other = recognize(model, x, lens, opts, causal), recognize(scripted, x, lens, opts, causal)
    assert [h[:2] for h in one] == [h[:2] for h in other]
    assert sum(len(h.tokens) for h in one) > 30


@pytest.mark.parametrize("method", METHODS)
def test_streaming_script_equals_eager(runs, method):
    exp_dir, model = runs[True]
    model.set_chunk(16, 32)
    scripted = load_torchscript(exp_dir / "jit_script_chunk_16_left_32.pt")
    features = utterances(8)
    opts = SearchOptions(decoding_method=method)
    want = recognize(model, *collate(features), opts, True, 16)
    batch = StreamBatch(scripted, streaming_search(scripted, opts), 16)
    found = dict(decode_streams(batch, enumerate(features), 3))
    assert [found[i][:2] for i in range(8)] == [h[:2] for h in want]


def transcripts(capsys, model, files, *options):
    capsys.readouterr()
    transcribe.main(argv=["--model", str(model), "--num-threads", "1", *options, *map(str, files)])
    return capsys.readouterr().out


@pytest.mark.parametrize("causal", [False, True])
def test_transcribe_from_every_kind_of_file(runs, causal, tmp_path, capsys):
    exp_dir, _ = runs[causal]
    files = write_audio(tmp_path)
    texts = [
        transcripts(capsys, exp_dir / name, files)
        for name in ("epoch-1.pt", "pretrained.pt", "jit_script.pt")
    ]
    assert texts[0] == texts[1] == texts[2]
    assert [line.split(": ")[0] for line in texts[0].splitlines()] == list(map(str, files))
    assert "W" in texts[0]
    if causal:
        streamed = transcripts(capsys, exp_dir / "jit_script_chunk_16_left_32.pt", files)
        simulated = transcripts(
            capsys, exp_dir / "pretrained.pt", files, "--chunk-size", "16", "--left-context-frames", "32"
        )
        assert streamed == simulated


def test_one_torchscript_file_is_enough(runs, tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes((runs[True][0] / "jit_script_chunk_16_left_32.pt").read_bytes())
    assert "W" in transcripts(capsys, tmp_path / "model.pt", write_audio(tmp_path))


def test_json_timestamps_rates_and_channels(runs, tmp_path, capsys):
    exp_dir, _ = runs[False]
    (path,) = write_audio(tmp_path, n=1)
    samples, _ = soundfile.read(path, dtype="float32")
    two = tmp_path / "two.flac"
    soundfile.write(
        two, torch.stack([torch.from_numpy(samples), torch.zeros(len(samples))], dim=1).numpy(), 16000
    )
    first, second = map(
        json.loads, transcripts(capsys, exp_dir / "pretrained.pt", [path, two], "--json", "1").splitlines()
    )
    assert first["text"] == second["text"] and first["duration"] == pytest.approx(
        len(samples) / 16000, abs=1e-3
    )
    assert len(first["tokens"]) == len(first["timestamps"]) > 0
    assert first["timestamps"] == sorted(first["timestamps"]) and first["timestamps"][-1] <= first["duration"]
    lines = transcripts(capsys, exp_dir / "pretrained.pt", [path], "--timestamps", "1").splitlines()
    assert [line.split() for line in lines[1:]] == [
        [f"{w['start']:.2f}", f"{w['end']:.2f}", w["w"]] for w in first["words"]
    ]
    assert [w["w"] for w in first["words"]] == first["text"].split()
    sure = json.loads(
        transcripts(capsys, exp_dir / "pretrained.pt", [path], "--json", "1", "--confidence", "1")
    )
    assert all(0 <= w["confidence"] <= 1 for w in sure["words"]) and sure["text"] == first["text"]


def test_bad_files_are_named_and_the_others_done(runs, tmp_path, capsys):
    exp_dir, _ = runs[False]
    good = write_audio(tmp_path, n=2)
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    files = [good[0], tmp_path / "missing.wav", tmp_path / "bad.wav", good[1]]
    with pytest.raises(SystemExit) as stop:
        transcripts(capsys, exp_dir / "pretrained.pt", files)
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(good[0]), str(good[1])]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "missing.wav" in errors[0] and "bad.wav" in errors[1]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: p / "none.pt", "--model: cannot read "),
        (lambda p: (p / "x.pt").write_bytes(b"junk") and p / "x.pt", "damaged"),
        (
            lambda p: (p / "y.pt").write_bytes((p / "jit_script.pt").read_bytes()[:5000]) and p / "y.pt",
            "damaged",
        ),
    ],
)
def test_bad_models_are_refused_in_one_line(runs, tmp_path, capsys, make, message):
    (tmp_path / "jit_script.pt").write_bytes((runs[False][0] / "jit_script.pt").read_bytes())
    with pytest.raises(SystemExit) as stop:
        transcribe.main(argv=["--model", str(make(tmp_path)), "x.wav"])
    assert stop.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


def test_long_recordings_are_cut(runs, tmp_path, capsys):
    exp_dir, _ = runs[False]
    path = write_audio(tmp_path, n=4)[-1]
    whole = json.loads(transcripts(capsys, exp_dir / "pretrained.pt", [path], "--json", "1"))
    cut = json.loads(
        transcripts(capsys, exp_dir / "pretrained.pt", [path], "--json", "1", "--max-segment", "1")
    )
    assert cut["tokens"] and cut["timestamps"] == sorted(cut["timestamps"]) and cut["timestamps"][-1] > 1
    assert whole["duration"] == cut["duration"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--chunk-size", "16,32"], "--chunk-size 16,32: "),
        (["--left-context-frames", "64"], "was exported for chunks of 16 frames and a left context of 32"),
        (["--encoder-dim", "64"], "--encoder-dim 64 contradicts"),
        (["--use-ema", "1"], "--use-ema 1: "),
    ],
)
def test_options_that_contradict_a_script_are_refused(runs, capsys, options, message):
    with pytest.raises(SystemExit):
        transcripts(capsys, runs[True][0] / "jit_script_chunk_16_left_32.pt", ["x.wav"], *options)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


def test_wrong_chunks_are_refused(runs, capsys):
    exp_dir, _ = runs[True]
    for options in (["--chunk-size", "16,32"], [], ["--chunk-size", "15", "--left-context-frames", "32"]):
        with pytest.raises(SystemExit) as stop:
            export.main(argv=[*SELECT, "--exp-dir", str(exp_dir), "--jit", "1", *options])
        assert stop.value.code == 1
        assert "chunk" in capsys.readouterr().err.splitlines()[-1]


def test_generate_averaged_model(tmp_path):
    models = []
    for seed in (1, 0):  # each is written as epoch 1
        models.append(write_run(tmp_path, False, seed))
        if seed:
            (tmp_path / "epoch-1.pt").rename(tmp_path / "epoch-2.pt")
    generate_averaged_model.main(
        argv=["--exp-dir", str(tmp_path), "--epoch", "2", "--avg", "2", "--use-averaged-model", "0"]
    )
    content = load_checkpoint_file(tmp_path / "epoch-2-avg-2.pt")
    for name, value in content["model"].items():
        torch.testing.assert_close(value, (models[0].state_dict()[name] + models[1].state_dict()[name]) / 2)
    model_from_checkpoint(content, {})


def test_the_weights_of_a_checkpoint_are_chosen(tmp_path, capsys):
    """Its own, or their exponential average: by default what training validated."""
    write_run(tmp_path / "ema", causal=False, seed=5)
    average = load_checkpoint_file(tmp_path / "ema" / "epoch-1.pt")["model"]
    write_run(tmp_path, causal=False)
    path = tmp_path / "epoch-1.pt"
    content = load_checkpoint_file(path)
    content["model_ema"] = {name: value.double() for name, value in average.items()}
    torch.save(content, path)
    torch.save({**content, "valid_with_ema": True}, tmp_path / "validated.pt")
    files = write_audio(tmp_path, 2)
    own, other = (transcripts(capsys, p, files) for p in (path, tmp_path / "ema" / "epoch-1.pt"))
    assert own != other
    assert transcripts(capsys, path, files, "--use-ema", "1") == other
    assert transcripts(capsys, tmp_path / "validated.pt", files) == other
    assert transcripts(capsys, tmp_path / "validated.pt", files, "--use-ema", "0") == own
    with pytest.raises(SystemExit):
        transcribe.main(
            argv=["--model", str(tmp_path / "ema" / "epoch-1.pt"), "--use-ema", "1", str(files[0])]
        )
    assert "holds no exponential average" in capsys.readouterr().err
