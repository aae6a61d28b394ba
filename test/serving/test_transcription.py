"""Transcription of recordings with one model."""

import numpy as np
import pytest
import torch
from recognition import recognize
from tiny import write_audio, write_run

from asr_core.data.audio import load_audio
from asr_core.data.features import extract_features
from asr_core.decoding.encoding import collate
from asr_core.decoding.options import SearchOptions
from asr_core.export.loading import load_for_inference
from asr_core.serving.options import TranscribeOptions
from asr_core.serving.transcript import Transcript, format_transcript
from asr_core.serving.transcription import Transcriber, search_options, transcribe_files
from asr_core.utils.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, False)
    return folder


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return [str(path) for path in write_audio(tmp_path_factory.mktemp("audio"), 3)]


@pytest.fixture(scope="module")
def loaded(run):
    return load_for_inference(str(run / "epoch-1.pt"))


def transcriber(loaded, **options):
    return Transcriber(loaded, TranscribeOptions(**options), torch.device("cpu"))


@pytest.mark.parametrize("features_on_device", [False, True])
def test_transcripts_are_those_of_decoding(loaded, audio, features_on_device):
    recordings = {path: load_audio(path, 16000) for path in audio}
    transcripts = transcriber(loaded, features_on_device=features_on_device).transcribe(recordings)
    assert list(transcripts) == audio
    features = [extract_features(samples, 16000) for samples in recordings.values()]
    found = recognize(loaded.model, *collate(features), SearchOptions(), False)
    assert any(h.tokens for h in found)
    for path, hypothesis in zip(audio, found):
        transcript = transcripts[path]
        assert transcript.text == loaded.tokenizer.decode(hypothesis.tokens)
        assert transcript.tokens == [loaded.tokenizer.pieces[token] for token in hypothesis.tokens]
        assert transcript.duration == pytest.approx(len(recordings[path]) / 16000, abs=1e-3)


def test_long_recordings_are_cut_and_put_together(loaded):
    noise = np.random.default_rng(5).standard_normal(4 * 16000).astype(np.float32) * 0.1
    transcript = transcriber(loaded, max_segment=1.0).transcribe({"noise": torch.from_numpy(noise)})["noise"]
    assert len(transcript.tokens) == len(transcript.timestamps) > 0
    assert transcript.timestamps == sorted(transcript.timestamps) and transcript.timestamps[-1] > 1.0
    assert [word["w"] for word in transcript.words] == transcript.text.split()
    assert transcriber(loaded).transcribe({}) == {}


def test_files_that_cannot_be_read_are_counted(run, audio, tmp_path, capsys):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    params = {"model": str(run / "epoch-1.pt"), "num_threads": 1}
    assert transcribe_files(params, [*audio, str(tmp_path / "broken.wav"), str(tmp_path / "none.wav")]) == 2
    out = capsys.readouterr()
    assert [line.split(":")[0] for line in out.out.splitlines()] == audio
    errors = [line for line in out.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "broken.wav" in errors[0] and "none.wav" in errors[1]


@pytest.mark.parametrize(
    "method",
    ["modified_beam_search_LODR", "fast_beam_search_nbest_oracle", "attention-decoder-rescoring-no-ngram"],
)
def test_methods_that_need_more_are_refused(method):
    with pytest.raises(UserError, match="needs more than a model: use decode.py"):
        search_options(TranscribeOptions(method=method))
    assert search_options(TranscribeOptions(method="alsd", beam_size=7)).beam_size == 7


def test_lines():
    words = [{"w": "one", "start": 0.1, "end": 0.5, "confidence": 0.75}]
    transcript = Transcript("a.wav", text="one", duration=1.0, words=words)
    assert format_transcript(transcript, TranscribeOptions()) == "a.wav: one"
    times = format_transcript(transcript, TranscribeOptions(timestamps=True))
    assert times == "a.wav: one\n     0.10      0.50      0.75  one"
    assert '"text": "one"' in format_transcript(transcript, TranscribeOptions(json=True))
