"""The programs accept the commands on the recipes' pages and in a well-known tutorial."""

import re
import shlex

import pytest
from recipe_programs import EGS, options_given

from asr_core.models.checkpoint import model_options
from asr_core.models.options import ModelOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import record_of

PAGES = sorted(path for name in ("README.md", "RESULTS.md") for path in EGS.glob(f"*/ASR/{name}"))
L = "librispeech/ASR"
S7 = "pruned_transducer_stateless7_streaming"
# The commands of icefall's tutorial on its streaming Zipformer, with variables of loops filled in.
TUTORIAL = f"""
./{S7}/train.py --help
./{S7}/decode.py --help
./{S7}/streaming_decode.py --help
./{S7}/train.py --world-size 4 --num-epochs 30 --start-epoch 1 --use-fp16 1 --exp-dir {S7}/exp --full-libri 1 --max-duration 550
./{S7}/train.py --world-size 2 --num-epochs 30 --start-epoch 10 --use-fp16 1 --exp-dir {S7}/exp
./{S7}/train.py --world-size 1 --start-batch 436000
./{S7}/decode.py --epoch 30 --avg 12 --exp-dir {S7}/exp --max-duration 600 --decode-chunk-len 32 --decoding-method modified_beam_search
./{S7}/decode.py --iter 474000 --avg 18 --exp-dir {S7}/exp --max-duration 600 --decode-chunk-len 32 --decoding-method fast_beam_search
./{S7}/streaming_decode.py --epoch 30 --avg 8 --exp-dir {S7}/exp --decode-chunk-len 32 --num-decode-streams 100 --decoding-method greedy_search
./{S7}/streaming_decode.py --iter 474000 --avg 8 --exp-dir {S7}/exp --decode-chunk-len 16 --num-decode-streams 100
./{S7}/export.py --exp-dir {S7}/exp --bpe-model data/lang_bpe_500/bpe.model --epoch 30 --avg 9 --use-averaged-model=True --decode-chunk-len 32
./{S7}/export.py --exp-dir {S7}/exp --tokens data/lang_bpe_500/tokens.txt --epoch 30 --avg 9 --use-averaged-model=True --decode-chunk-len 32
./{S7}/decode.py --epoch 999 --avg 1 --use-averaged-model 0 --exp-dir {S7}/exp --decoding-method greedy_search --decode-chunk-len 32
./{S7}/pretrained.py --checkpoint {S7}/exp/pretrained.pt --bpe-model data/lang_bpe_500/bpe.model --method greedy_search --decode-chunk-len 32 a.wav b.wav
./{S7}/export.py --exp-dir {S7}/exp --bpe-model data/lang_bpe_500/bpe.model --epoch 30 --avg 9 --decode-chunk-len 32 --use-averaged-model=True --jit 1
./{S7}/jit_trace_export.py --exp-dir {S7}/exp --bpe-model data/lang_bpe_500/bpe.model --epoch 30 --avg 9 --use-averaged-model=True --decode-chunk-len 32
./{S7}/jit_trace_pretrained.py --encoder-model-filename {S7}/exp/encoder_jit_trace.pt --decoder-model-filename {S7}/exp/decoder_jit_trace.pt --joiner-model-filename {S7}/exp/joiner_jit_trace.pt --bpe-model data/lang_bpe_500/bpe.model --decode-chunk-len 32 a.wav
"""  # noqa: E501


def commands(text):
    """The calls of programs in ``text``, one line each: (program, arguments)."""
    for line in text.replace("\\\n", " ").splitlines():
        found = re.match(r"(?:python3? )?(?:\./)?((?:\w+/)?\w+\.py) (.*)", line.strip())
        if found:
            words = shlex.split(re.sub(r"\$\w+", "1", re.sub(r"[][]", "", found[2])), comments=True)
            yield found[1], [word for word in words if word != "..."]


def of_page(path):
    for block in re.findall(
        r"^```(?:bash|sh)?\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        yield from commands(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(EGS)))
def test_commands_of_the_pages(page):
    for program, arguments in of_page(page):
        assert options_given(page.parent / program, *arguments), program


def test_pages_show_each_folder_of_librispeech():
    shown = {program.split("/")[0] for program, _ in of_page(EGS / L / "README.md")}
    folders = {path.parent.name for path in EGS.glob(f"{L}/*/train.py")}
    assert folders - {"rnn_lm", "transformer_lm"} <= shown


def test_commands_of_the_tutorial(capsys):
    given = []
    for program, arguments in commands(TUTORIAL):
        if arguments == ["--help"]:
            with pytest.raises(SystemExit):
                options_given(EGS / L / program, *arguments)
            assert "--decode-chunk-len" in capsys.readouterr().out
        else:
            given.append((program, options_given(EGS / L / program, *arguments)))
    assert len(given) == 14
    for program, options in given:
        assert (
            options.encoder == "zipformer1"
            if "jit_trace_pretrained" not in program
            else options.decode_chunk_len == 32
        )
    last = given[-1][1]
    assert (last.tokens, last.sound_files) == ("data/lang_bpe_500/bpe.model", ["a.wav"])


def test_defaults_of_the_tutorials_programs():
    defaults = {
        "train": dict(
            base_lr=0.05,
            lr_batches=5000.0,
            lr_epochs=3.5,
            save_every_n=2000,
            short_chunk_size=50,
            num_left_chunks=4,
        ),
        "decode": dict(
            epoch=30, avg=9, use_averaged_model=True, decode_chunk_len=32, decoding_method="greedy_search"
        ),
        "streaming_decode": dict(epoch=28, avg=15, decode_chunk_len=32, num_decode_streams=2000),
        "export": dict(epoch=30, avg=9, jit=False, decode_chunk_len=32),
        "jit_trace_export": dict(epoch=28, avg=15, decode_chunk_len=32),
    }
    for program, expected in defaults.items():
        given = vars(options_given(EGS / L / S7 / f"{program}.py"))
        assert {name: given[name] for name in expected} == expected and given["exp_dir"] == f"{S7}/exp", (
            program
        )


def test_programs_of_a_recipe_know_its_encoder(capsys):
    folder = EGS / L / "contextnet"
    assert options_given(folder / "decode.py", "--alpha", 0.25).alpha == 0.25
    other = options_given(folder / "decode.py", "--encoder", "zipformer", "--encoder-dim", 64)
    assert (other.encoder, other.encoder_dim, "alpha" in other) == ("zipformer", (64,), False)
    with pytest.raises(SystemExit):
        options_given(folder / "decode.py", "--encoder-dim", 64)
    with pytest.raises(
        UserError,
        match="--encoder contextnet contradicts .* trained with zipformer: give --encoder zipformer",
    ):
        model_options(record_of(ModelOptions()), {"encoder": "contextnet"})
