"""The command lines of the programs that decode."""

import re
from types import SimpleNamespace

import pytest

from asr_core.bin import (
    ctc_decode,
    decode,
    export,
    generate_averaged_model,
    jit_trace_export,
    streaming_decode,
    transcribe,
)
from asr_core.data.corpus import Corpus
from asr_core.utils.options import str2bool

PROGRAMS = [decode, streaming_decode, ctc_decode]
OF_TRAINING = [
    "--spec-aug",
    "--mux-cuts",
    "--joiner-noise",
    "--num-buckets",
    "--speed-perturb",
    "--use-cr-ctc",
]


class Digits(Corpus):
    name = "digits"
    training_options = ("all_speakers",)

    @classmethod
    def add_arguments(cls, parser):
        parser.add_argument("--all-speakers", type=str2bool, default=True, help="train on all")
        parser.add_argument("--accent", default="", help="of the test sets")


def printed(program, capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        program.main(Digits, argv=list(argv))
    out = capsys.readouterr()
    return stop.value.code, out.out + out.err


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_lists_only_what_has_an_effect(program, capsys):
    status, text = printed(program, capsys, "--help")
    listed = set(re.findall(r"^  (--[a-z0-9-]+)", text, re.M))
    assert status == 0 and not listed & {*OF_TRAINING, "--all-speakers", "--attention-decoder-loss-scale"}
    assert not [flag for flag in listed if flag.startswith(("--spec-aug", "--predictor-noise", "--enable"))]
    assert {"--accent", "--manifest-dir", "--decoding-method", "--chunk-size", "--exp-dir"} <= listed


@pytest.mark.parametrize("program", PROGRAMS)
def test_options_of_published_commands_are_accepted(program, monkeypatch):
    seen = SimpleNamespace()
    monkeypatch.setattr(
        f"{program.__name__}.run_program", lambda body: setattr(seen, "body", body), raising=False
    )
    monkeypatch.setattr("asr_core.bin.decode.run_program", lambda body: setattr(seen, "body", body))
    argv = ["--num-buckets", "20", "--enable-spec-aug", "0", "--use-cr-ctc", "1", "--all-speakers", "0"]
    argv += ["--predictor-noise", "0.075"]
    program.main(Digits, argv=argv)
    assert callable(seen.body)


@pytest.mark.parametrize(
    "program, option, near",
    [
        (decode, "--spec-aug-fill", "--help lists them all"),
        (streaming_decode, "--ctc", "did you mean "),
        (decode, "--beam-sizes", "did you mean --beam-size?"),
    ],
)
def test_other_options_are_refused_with_the_nearest(program, option, near, capsys):
    status, text = printed(program, capsys, option, "1")
    assert status == 2 and text.startswith(f"{text.split(':')[0]}: error: unknown option {option}; ")
    assert near in text


@pytest.mark.parametrize("program", [export, transcribe, generate_averaged_model, jit_trace_export])
def test_an_unknown_encoder_is_refused_in_one_line(program, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(argv=["--encoder", "nope"])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and "unknown --encoder 'nope'; known: zipf" in err


def test_help_breaks_no_line_inside_the_name_of_an_option(capsys):
    _, text = printed(decode, capsys, "--help")
    assert not re.findall(r"--[a-z-]*-$", text, re.M)
