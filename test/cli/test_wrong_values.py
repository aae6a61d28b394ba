"""Wrong numbers and files on the command lines of all programs; test/torture runs many more."""

import argparse
import random

import pytest
from command_lines import NUMBERS, fuzzed_numbers, fuzzed_paths, numeric_actions, parser_of, run
from command_world import LINES, build, lines

from asr_core.utils.errors import UserError
from asr_core.utils.option_values import Bounds
from asr_core.utils.options import check_numbers

OF_EACH_PROGRAM = {line.program: line for line in lines(LINES)}
SAMPLE = 60
LIGHT = (
    "write_transcripts",
    "train_tokenizer",
    "prepare_noise",
    "convert_transcript_words_to_tokens",
    "prepare_lang_bpe",
    "make_kn_lm",
)


def accepts(parser, action, text):
    bounds = parser.declared.get(action.dest, {}).get("bounds", Bounds())
    try:
        check_numbers(action.dest, action.type(text), bounds)
    except (ValueError, argparse.ArgumentTypeError, UserError):
        return False
    return True


@pytest.mark.parametrize("program", OF_EACH_PROGRAM)
def test_no_number_is_nan_or_text_or_beyond_64_bits(program):
    parser = parser_of(OF_EACH_PROGRAM[program])
    for action in numeric_actions(parser):
        accepted = {text for text in NUMBERS if accepts(parser, action, text)}
        assert not accepted & {"nan", "abc"}, action.dest
        whole = action.type is not float
        assert not (whole and accepted & {"inf", str(2**63), str(10**12)}), action.dest
        unlimited = ("beam", "search_beam", "output_beam", "embed_limit")
        assert "inf" not in accepted or action.dest in unlimited, action.dest
        default = parser.get_default(action.dest)
        if default not in (None, argparse.SUPPRESS):
            check_numbers(action.dest, default, parser.declared.get(action.dest, {}).get("bounds", Bounds()))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build(folder, tmp_path_factory.mktemp("scratch"), LIGHT)
    return folder


def test_a_sample_of_wrong_lines_works_or_is_refused_in_one_line(world, tmp_path):
    here = [
        line
        for line in lines(LINES)
        if all("{w}" not in a or (world / a.split("{w}/")[1]).exists() for a in line.argv)
    ]
    wrong = [fuzzed for line in here for fuzzed in (*fuzzed_numbers(line), *fuzzed_paths(line))]
    assert len(wrong) > 3 * SAMPLE
    for line in random.Random(1).sample(wrong, SAMPLE):
        outcome = run(line, world, tmp_path)
        assert not outcome.complaint, f"{line}\n{outcome.err[-1000:]}"
