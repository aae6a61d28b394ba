"""Recordings of any length, from no sample on: every encoder, every kind of file, every program."""

import pytest
import soundfile
import torch
from decode_programs import SELECT
from manifests import read_cuts
from recordings import tone
from tiny import PIECES, write_audio, write_run
from tiny_encoders import TINY, checkpoint, model_of

from asr_core.bin import decode, prepare_tsv
from asr_core.data.compute import compute_features
from asr_core.data.corpus import Corpus
from asr_core.data.features import FeatureStream, extract_features, make_extractor
from asr_core.data.module import AsrDataModule
from asr_core.data.options import FEATURE_TYPES, DataOptions, FeatureOptions
from asr_core.export.loading import load_for_inference
from asr_core.export.pretrained import model_info, save_pretrained
from asr_core.export.torchscript import save_torchscript, script_model
from asr_core.export.traced import export_traced, load_traced
from asr_core.serving.options import TranscribeOptions
from asr_core.serving.transcription import Transcriber, transcribe_files

LENGTHS = (0, 1, 79, 80, 139, 140, 160, 240, 399, 400, 1000, 1359, 2000)


def noise(samples):
    return 0.3 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("kind", FEATURE_TYPES)
@pytest.mark.parametrize("rate", [16000, 8000, 22050])
def test_features_of_any_number_of_samples(kind, rate):
    for samples in {n * rate // 16000 + more for n in LENGTHS for more in (0, 1)}:
        features = extract_features(noise(samples), rate, 40, kind)
        shift, window = rate // 100, rate // 40
        frames = (
            (samples + shift // 2) // shift if kind == "fbank" else -(-(samples - window - 1) // shift) + 1
        )
        assert features.shape == (max(frames, int(kind == "log-mel" and samples > 0)), 40)
        assert features.isfinite().all()
        stream = FeatureStream(rate, 40, kind)
        parts = [stream.accept(part) for part in noise(samples).split(50)] if samples else []
        torch.testing.assert_close(torch.cat([*parts, stream.finish()]), features, atol=1e-3, rtol=1e-4)


def test_samples_are_mirrored_as_often_as_a_window_needs():
    samples = noise(90)
    # the window of the only frame has samples -120 to 279, and 90 are mirrored to 180, again and again
    period = torch.cat([samples, samples.flip(0)])
    mirrored = torch.stack([period[i % 180] for i in range(-320, 480)])
    expected = make_extractor().extract(mirrored, 16000)[2:3]
    torch.testing.assert_close(extract_features(samples, 16000), expected)
    for samples in range(140, 400, 37):  # lhotse mirrors once, which suffices from 140 on
        x = noise(samples)
        torch.testing.assert_close(extract_features(x, 16000), make_extractor().extract(x, 16000))


def test_long_recordings_are_computed_in_pieces(monkeypatch):
    x = noise(16000 * 5)
    whole, longest = extract_features(x, 16000), []
    monkeypatch.setattr("asr_core.data.features._PIECE", 2)
    extract = type(make_extractor()).extract
    monkeypatch.setattr(
        type(make_extractor()),
        "extract",
        lambda self, s, rate: longest.append(len(s)) or extract(self, s, rate),
    )
    torch.testing.assert_close(extract_features(x, 16000), whole, atol=1e-4, rtol=1e-4)
    assert max(longest) <= 2 * 16000


def save(name, kind, folder):
    """Write a model of one encoder as a file of one kind; return it as transcription loads it."""
    model = model_of(name)
    info = model_info(model, checkpoint(name))
    (folder / "tokens.txt").write_text("".join(f"{p} {i}\n" for i, p in enumerate(PIECES)))
    path = folder / f"{kind}.pt"
    if kind.startswith("jit"):
        if kind == "jit_whole":
            model.set_chunk(-1, -1)
        save_torchscript(script_model(model, kind == "jit_stream"), path, info, PIECES)
        return load_for_inference(str(path))
    save_pretrained(model, checkpoint(name), path)
    chunk = {} if kind == "whole" else {"chunk_size": 16, "left_context_frames": 32}
    return load_for_inference(str(path), given=chunk)


@pytest.mark.parametrize("kind", ["whole", "chunks", "jit_whole", "jit_stream"])
@pytest.mark.parametrize("name", TINY)
def test_transcription(name, kind, tmp_path):
    loaded = save(name, kind, tmp_path)
    good = noise(24000)
    (alone,) = (
        Transcriber(loaded, TranscribeOptions(), torch.device("cpu")).transcribe({"good": good}).values()
    )
    for method in ("greedy_search", "modified_beam_search"):
        transcriber = Transcriber(loaded, TranscribeOptions(method=method), torch.device("cpu"))
        found = transcriber.transcribe({**{str(n): noise(n) for n in LENGTHS}, "good": good})
        assert [int(key) for key in list(found)[:-1]] == list(LENGTHS)
        assert all(found[key].text == "" and not found[key].tokens for key in ("0", "1", "79"))
        assert all(t.duration == pytest.approx(int(n) / 16000, abs=1e-3) for n, t in list(found.items())[:-1])
        only = transcriber.transcribe({"79": noise(79), "0": noise(0)})  # a batch of nothing
        assert [t.text for t in only.values()] == ["", ""]
        if method == "greedy_search":
            assert found["good"].tokens == alone.tokens and len(alone.tokens) > 3


def test_traced_files(tmp_path):
    model = model_of("conformer")
    model.set_chunk(16, 32)
    model_info_ = model_info(model, checkpoint("conformer"))
    paths = export_traced(model, tmp_path, model_info_, PIECES)
    loaded = save("conformer", "jit_stream", tmp_path)._replace(model=load_traced(*paths))
    found = Transcriber(loaded, TranscribeOptions(), torch.device("cpu")).transcribe(
        {str(n): noise(n) for n in (*LENGTHS, 24000)}
    )
    assert found["0"].text == found["79"].text == "" and found["24000"].text


def test_files(tmp_path, capsys):
    write_run(tmp_path, False)
    paths = [str(path) for path in write_audio(tmp_path, 1)]
    for n in (0, 1, 139, 140):
        paths.append(str(tmp_path / f"n{n}.wav"))
        soundfile.write(paths[-1], noise(n).numpy(), 16000)
    assert transcribe_files({"model": str(tmp_path / "epoch-1.pt"), "num_threads": 1}, paths) == 1
    out = capsys.readouterr()
    lines = dict(line.split(": ", 1) for line in out.out.splitlines())
    assert list(lines) == [paths[0], *paths[2:]] and lines[paths[0]] and not lines[paths[2]]
    assert [line for line in out.err.splitlines() if "error" in line] == [
        f"error: {paths[1]}: no audio in it"
    ]


class Short(Corpus):
    name = "custom"
    test_parts = {"test": "test"}


def prepared(folder):
    """Cuts of 1, 139 and 16000 samples, without and with features; nothing is left out."""
    for n in (1, 139, 16000):
        soundfile.write(folder / f"n{n}.wav", tone(n / 16000), 16000)
    (folder / "list.tsv").write_text("n1.wav\tw1\nn139.wav\tw2\nn16000.wav\tw3 w4\n")
    prepare_tsv.main(["--test", str(folder / "list.tsv"), "--output-dir", str(folder / "manifests")])
    source, target = (folder / place / "custom_cuts_test.jsonl.gz" for place in ("manifests", "fbank"))
    done = compute_features(source, target, FeatureOptions(), progress=False)
    assert done.cuts == 3 and not done.dropped
    return source, target


def test_preparation_and_training(tmp_path):
    for path, computed in zip(prepared(tmp_path), (True, False)):
        cuts = read_cuts(path)
        module = AsrDataModule(DataOptions(on_the_fly_feats=computed, num_workers=0, min_duration=0.0))
        (batch,) = module.valid_dataloader(cuts)
        assert batch["supervisions"]["text"] == ["w3 w4"]
        assert module.dropped.ids == {"no frame is left after subsampling": ["n1-1", "n139-2"]}


@pytest.mark.parametrize("computed", ["0", "1"])
@pytest.mark.parametrize("batches", ["100", "0.01"])
def test_decoding(tmp_path, computed, batches):
    prepared(tmp_path)
    write_run(tmp_path / "exp", False)
    where = ["--exp-dir", str(tmp_path / "exp"), "--manifest-dir", str(tmp_path / "fbank")]
    decode.main(Short, argv=[*where, *SELECT, "--on-the-fly-feats", computed, "--max-duration", batches])
    (recogs,) = (tmp_path / "exp/greedy_search").glob("recogs-*")
    lines = recogs.read_text().splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["n1-1", "n139-2", "n16000-3"]
    assert lines[1].endswith("hyp=[]")
