"""The LibriSpeech Zipformer programs have the reference's options: names, types and defaults."""

import argparse
import json
from pathlib import Path

import pytest
from recipe_programs import EGS, options_given
from recipe_programs import parser_of as parser_of_program

from asr_core.models.options import ModelOptions
from asr_core.utils.options import as_recorded, defaults_of, int_tuple, str2bool

ROOT = Path(__file__).resolve().parents[2]
RECIPE = EGS / "librispeech/ASR/zipformer"
REFERENCE = json.loads((ROOT / "test/golden/icefall_options.json").read_text(encoding="utf-8"))

# Where a default differs on purpose, and why. What a checkpoint records has no default in programs
# that read one.
BESIDE_CHECKPOINT = "what lies beside the checkpoint goes first, then the reference's default"
OTHER_DEFAULTS = {
    ("decode", "--bpe-model"): BESIDE_CHECKPOINT,
    ("ctc_decode", "--bpe-model"): BESIDE_CHECKPOINT,
    ("streaming_decode", "--bpe-model"): BESIDE_CHECKPOINT,
    ("export", "--tokens"): BESIDE_CHECKPOINT,
    ("generate_averaged_model", "--tokens"): BESIDE_CHECKPOINT,
}


def parser_of(program):
    return parser_of_program(RECIPE / f"{program}.py")


def reference_of(program):
    spec = REFERENCE["programs"][program]
    options = {
        name: tuple(form) for group in spec["groups"] for name, form in REFERENCE["groups"][group].items()
    }
    for name, default in spec["defaults"].items():
        options[name] = (options[name][0], default)
    return options


def kind(action):
    return {str2bool: "bool", int_tuple: "str", None: "str"}.get(action.type) or action.type.__name__


def same_kind(mine, theirs):
    # Paths stay text here until they are used; seconds of audio need not be whole.
    return mine == theirs or (mine, theirs) in (("str", "Path"), ("float", "int"))


def default_of(parser, action):
    """The value without the option, and without a record of it in the checkpoint."""
    if action.default is not argparse.SUPPRESS:
        return action.default
    known = defaults_of(ModelOptions)
    return (
        known[action.dest]
        if action.dest in known
        else {"sample_rate": 16000, "num_mel_bins": 80}[action.dest]
    )


@pytest.mark.parametrize("program", REFERENCE["programs"])
def test_every_option_of_the_reference(program):
    parser = parser_of(program)
    actions = parser._option_string_actions
    missing, differing = [], []
    for name, (theirs, default) in reference_of(program).items():
        if name not in actions:
            missing.append(name)
            continue
        action = actions[name]
        if not same_kind(kind(action), theirs):
            differing.append(f"{name} is of type {kind(action)}, not {theirs}")
        mine = as_recorded(default_of(parser, action))
        if (None if mine == "" else mine) != (None if default == "" else default) and (
            program,
            name,
        ) not in OTHER_DEFAULTS:
            differing.append(f"{name} is {mine!r} by default, not {default!r}")
    assert not missing and not differing, f"missing: {missing}; differing: {differing}"


@pytest.mark.parametrize("program, name", OTHER_DEFAULTS)
def test_differences_on_purpose_are_still_there(program, name):
    parser = parser_of(program)
    assert default_of(parser, parser._option_string_actions[name]) != reference_of(program)[name][1]


def values(program, *argv):
    return options_given(RECIPE / f"{program}.py", *argv)


def test_forms_of_values():
    parse = lambda *argv: values("train", *argv)  # noqa: E731
    assert parse("--causal", "1").causal is True and parse("--causal", "False").causal is False
    assert parse("--use-fp16", "t").use_fp16 is True and parse("--full-libri", "no").full_libri is False
    assert parse("--num-encoder-l", "1,1,1,1,1,1").num_encoder_layers == (1,) * 6
    assert parse("--base", "0.04").base_lr == 0.04 and parse("--max-dur", "1000").max_duration == 1000
    for argv in (["--causal"], ["--num", "3"], ["--causal", "maybe"], ["--no-such-option", "1"]):
        with pytest.raises(SystemExit) as stop:
            parse(*argv)
        assert stop.value.code == 2


def test_help_shows_defaults_that_say_something():
    text = parser_of("decode").format_help()
    assert (
        "(default: 20.0)" in text
        and "(default: False)" in text
        and "default: None" not in text
        and "default: )" not in text
    )


def test_both_spellings_of_num_active_paths():
    for name in ("--num_active_paths", "--num-active-paths"):
        assert values("streaming_decode", name, "7").num_active_paths == 7


def test_presets_yield_to_options_given_besides():
    usual = defaults_of(ModelOptions)
    large = values("train", "--model-size", "large")
    assert large.encoder_dim == (192, 256, 512, 768, 512, 256) and large.model_size == "" and not large.causal
    assert values("train", "--model-size", "streaming").causal is True
    sizes = ["--encoder-dim", as_recorded(usual["encoder_dim"])]
    for argv in (["--model-size", "small", *sizes], [*sizes, "--model-s", "small"]):
        mixed = values("train", *argv)
        assert mixed.encoder_dim == usual["encoder_dim"] and mixed.num_encoder_layers == (2,) * 6
    given = vars(values("decode", "--model-size", "small"))
    assert given["feedforward_dim"] == (512, *(768,) * 5) and not {"causal", "query_head_dim"} & set(given)


def test_finetuning_takes_the_models_options_from_its_checkpoint():
    given = vars(values("finetune", "--causal", "1"))
    assert given["causal"] is True and "encoder_dim" not in given and given["warmup_start"] == 0.5
