"""A tokenizer of the right size, but of other tokens, is refused by all programs and for all files."""

import pytest
import torch
from tiny import PIECES, write_audio, write_run

from asr_core.bin import (
    decode,
    export,
    generate_averaged_model,
    jit_trace_export,
    streaming_decode,
    transcribe,
)
from asr_core.data.corpus import Corpus
from asr_core.export.torchscript import load_torchscript
from asr_core.models.checkpoint import load_checkpoint_file
from asr_core.text.tokenizer import format_tokens

SELECT = ["--epoch", "1", "--avg", "1", "--use-averaged-model", "0"]
CHUNKS = ["--chunk-size", "16", "--left-context-frames", "32"]
OTHER = [*PIECES[:4], "\u2581X", *PIECES[5:]]
MESSAGE = "its token 4 is '\u2581X', the model's '\u2581W1'"


class Nothing(Corpus):
    """A corpus without manifests; tokens are compared before they are read."""

    name = "nothing"

    def test_sets(self):
        return {"none": []}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose checkpoint records its tokens, another tokenizer, and exports."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder / "exp", causal=True)
    content = torch.load(folder / "exp/epoch-1.pt")
    torch.save({**content, "pieces": PIECES}, folder / "exp/epoch-1.pt")
    (folder / "other.txt").write_text(format_tokens(OTHER))
    for program, more in EXPORTS.values():
        program.main(argv=[*SELECT, "--exp-dir", str(folder / "exp"), *more])
    return folder


EXPORTS = {
    "pretrained.pt": (export, []),
    "jit_script_chunk_16_left_32.pt": (export, ["--jit", "1", *CHUNKS]),
    "encoder_jit_trace.pt": (jit_trace_export, CHUNKS),
    "epoch-1-avg-1.pt": (generate_averaged_model, []),
}


def refused(capfd, start, *args, **more):
    with pytest.raises(SystemExit) as ended:
        start(*args, **more)
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1 and last.startswith("error: ") and MESSAGE in last, last
    return last


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(run, name, capfd):
    program, more = EXPORTS[name]
    path = run / "exp" / name
    pieces = load_checkpoint_file(path)["pieces"] if "jit" not in name else None
    assert pieces == (None if "jit" in name else PIECES)
    argv = [*SELECT, "--exp-dir", str(run / "exp"), *more, "--tokens", str(run / "other.txt")]
    refused(capfd, program.main, argv=argv)
    assert path.is_file()


@pytest.mark.parametrize("name", ["epoch-1.pt", "pretrained.pt", "jit_script_chunk_16_left_32.pt"])
def test_transcription(run, name, tmp_path, capfd):
    """The file alone suffices, and other tokens are refused."""
    (tmp_path / name).write_bytes((run / "exp" / name).read_bytes())
    audio = str(write_audio(tmp_path, 1)[0])
    transcribe.main(argv=["--model", str(tmp_path / name), audio])
    assert "W" in capfd.readouterr().out
    argv = ["--model", str(tmp_path / name), "--tokens", str(run / "other.txt"), audio]
    assert "leave out --tokens and --bpe-model" in refused(capfd, transcribe.main, argv=argv)
    if "jit" in name:
        assert load_torchscript(tmp_path / name).pieces == PIECES


@pytest.mark.parametrize("program, more", [(decode, []), (streaming_decode, CHUNKS)])
def test_decoding(run, program, more, capfd):
    argv = [*SELECT, "--exp-dir", str(run / "exp"), *more, "--bpe-model", str(run / "other.txt")]
    refused(capfd, program.main, Nothing, argv=argv)


def test_files_without_a_record(run, tmp_path, capfd):
    """What training wrote beside them counts; any other file does not, nor does its absence."""
    write_run(tmp_path / "exp", causal=True)
    argv = [*SELECT, "--exp-dir", str(tmp_path / "exp"), "--tokens", str(run / "other.txt")]
    export.main(argv=argv)
    assert load_checkpoint_file(tmp_path / "exp/pretrained.pt")["pieces"] == OTHER
    (tmp_path / "exp/params.json").write_text("{}")
    refused(capfd, export.main, argv=argv)
