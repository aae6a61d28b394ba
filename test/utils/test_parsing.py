"""Programs whose options are one dataclass: needed options, lists, arguments without a name,
statuses.
"""

import importlib
from dataclasses import dataclass
from typing import Tuple

import pytest

from asr_core.utils.options import option
from asr_core.utils.parsing import parse_options


@dataclass
class Files:
    """Files."""

    inputs: Tuple[str, ...] = option((), "files", positional=True)
    output: str = option("", "where to", needed=True)
    parts: Tuple[str, ...] = option(("train", "test"), "parts")
    size: int = option(3, "size", at_least=1)


def test_names_are_split_at_commas_and_arguments_are_not():
    opts = parse_options(Files, "x", ["a,b", "c", "--output", "o", "--parts", " dev, test,"])
    assert opts == Files(("a,b", "c"), "o", ("dev", "test"), 3)
    assert parse_options(Files, "x", ["a", "--output", "o", "--parts", ""]).parts == ()
    assert parse_options(Files, "x", ["a", "--output", "o"]).parts == ("train", "test")


def test_defaults_of_a_program_hold_unless_given():
    defaults = {"output": "here"}
    assert parse_options(Files, "x", ["a"], defaults=defaults).output == "here"
    assert parse_options(Files, "x", ["a", "--output", "o"], defaults=defaults).output == "o"


def test_help_shows_lists_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        parse_options(Files, "x", ["--help"])
    shown = capsys.readouterr().out
    assert "--parts NAME,..." in shown and "(default: train,test)" in shown


@pytest.mark.parametrize(
    "argv, status, message",
    [
        (["--output", "o"], 2, "arguments are required: inputs"),
        (["a"], 2, "--output is needed"),
        (["a", "--output", "o", "--size", "0"], 1, "error: --size must be at least 1, got 0"),
        (["a", "--output", "o", "--siz", "x"], 2, "invalid int value: 'x'"),
    ],
)
def test_mistakes_end_the_process_with_one_line(argv, status, message, capsys):
    with pytest.raises(SystemExit) as e:
        parse_options(Files, "x", argv)
    err = capsys.readouterr().err
    assert e.value.code == status and message in err and len(err.splitlines()) == 1


NEEDED = {
    "arpa_to_fst": "--arpa, --symbols and --output are needed",
    "combine_manifests": "arguments are required: manifests",
    "convert_transcript_words_to_tokens": "--lexicon and --transcript are needed",
    "describe_manifest": "arguments are required: manifests",
    "download": "--url and --output are needed",
    "make_kn_lm": "--text and --lm are needed",
    "ngram_perplexity": "--lm and --text are needed",
    "prepare_lang": "--lang-dir is needed",
    "prepare_lang_bpe": "--lang-dir is needed",
    "prepare_lm_data": "--bpe-model, --lm-data and --lm-archive are needed",
    "prepare_manifests": "--corpus, --corpus-dir and --parts are needed",
    "prepare_tsv": "give --train, --valid or --test",
    "train_tokenizer": "--lang-dir and --transcript are needed",
    "validate_manifest": "arguments are required: manifests",
    "write_shar": "--cuts and --shar-dir are needed",
    "write_transcripts": "arguments are required: manifests",
}


@pytest.mark.parametrize("program", NEEDED)
def test_programs_name_what_they_need(program, capsys):
    with pytest.raises(SystemExit) as e:
        importlib.import_module(f"asr_core.bin.{program}").main([])
    err = capsys.readouterr().err
    assert e.value.code == 2 and NEEDED[program] in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "program, argv, message",
    [
        (
            "make_kn_lm",
            ["--text", "t", "--lm", "l", "--ngram-order", "0"],
            "--ngram-order must be at least 1",
        ),
        (
            "compute_fbank",
            ["--num-mel-bins", "0"],
            "--num-mel-bins must be at least 7 and at most 512, got 0",
        ),
        (
            "compute_fbank",
            ["--sample-rate", "16"],
            "--sample-rate must be at least 1000 and at most 1000000, got 16",
        ),
        (
            "write_shar",
            ["--cuts", "c", "--shar-dir", "s", "--shard-size", "0"],
            "--shard-size must be at least 1",
        ),
        ("lm_perplexity", ["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    ],
)
def test_programs_refuse_values_out_of_bounds(program, argv, message, capsys):
    with pytest.raises(SystemExit) as e:
        importlib.import_module(f"asr_core.bin.{program}").main(argv=argv)
    assert e.value.code == 1 and message in capsys.readouterr().err
