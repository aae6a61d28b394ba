"""Every decoding method through decode.py, and what needs more than the model through
streaming_decode.py.
"""

import dataclasses
import re

import pytest
from decode_programs import CHUNKS, GRAPH_METHODS, MAIN, hypotheses, options, run
from tiny import PIECES

from asr_core.bin import decode, streaming_decode, transcribe
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import METHODS, resolve_method
from asr_core.lm.options import LmOptions
from asr_core.utils.errors import UserError

EXPECTED = {
    "beam_search": ("__beam_search__beam-size-4", "beam_search_beam-size-4"),
    "modified_beam_search_lm_shallow_fusion": (
        "__modified_beam_search_lm_shallow_fusion__beam-size-4_rnn-lm-scale-0.3",
        "modified_beam_search_lm_shallow_fusion_beam-size-4",
    ),
    "modified_beam_search_LODR": (
        "__modified_beam_search_LODR__beam-size-4_rnn-lm-scale-0.3_LODR-2gram-scale-0.01",
        "modified_beam_search_LODR_beam-size-4",
    ),
    "alignment_length_sync_search": (
        "__alignment_length_sync_search__beam-size-4_rnn-lm-scale-0.3",
        "alignment_length_sync_search_beam-size-4",
    ),
    "fast_beam_search": (
        "_beam-20.0_max-contexts-8_max-states-64",
        "fast_beam_search_beam-20.0_max-contexts-8_max-states-64",
    ),
    "fast_beam_search_LG": (
        "_beam-20.0_max-contexts-8_max-states-64",
        "fast_beam_search_LG_beam-20.0_max-contexts-8_max-states-64",
    ),
    "fast_beam_search_nbest": (
        "_beam-20.0_max-contexts-8_max-states-64_nbest-scale-0.5_num-paths-200",
        "fast_beam_search_nbest_beam-20.0_max-contexts-8_max-states-64_nbest-scale-0.5_num-paths-200",
    ),
    "fast_beam_search_nbest_oracle": (
        "_beam-20.0_max-contexts-8_max-states-64_nbest-scale-0.5_num-paths-200",
        "fast_beam_search_nbest_oracle_beam-20.0_max-contexts-8_max-states-64_nbest-scale-0.5_num-paths-200",
    ),
    "fast_beam_search_nbest_LG": (
        "_beam-20.0_max-contexts-8_max-states-64_nbest-scale-0.5_num-paths-200_ngram-lm-scale-0.01",
        "fast_beam_search_nbest_LG_beam-20.0_max-contexts-8_max-states-64_nbest-scale-0.5_num-paths-200_ngram-lm-scale-0.01",
    ),
}


@pytest.mark.parametrize("method", EXPECTED)
def test_files_of_each_method(world, extras, method):
    run(decode, world, False, "--decoding-method", method, *options(extras))
    part, key = EXPECTED[method]
    folder = world / "exp-False" / method
    found = hypotheses(folder / f"recogs-test-b-{MAIN}{part}.txt")
    assert any(found.values())
    assert all(
        re.fullmatch(r"WORD\d+" if "LG" in method else r"W\d|<unk>", word)
        for words in found.values()
        for word in words
    )
    assert (folder / f"errs-test-b-{MAIN}{part}.txt").is_file()
    assert f"\n{key}\t" in (folder / f"wer-summary-test-b-{MAIN}{part}.txt").read_text()


def test_every_method_is_tested_or_simple():
    named = {"greedy_search", "modified_beam_search", "ctc-greedy-search"}
    prefix = {"ctc-prefix-beam-search", "ctc-prefix-beam-search-shallow-fusion"}
    rescoring = {"modified_beam_search_lm_rescore", "modified_beam_search_lm_rescore_LODR"}
    assert set(METHODS) == {*EXPECTED, *named, *prefix, *rescoring, *GRAPH_METHODS}


def test_help_names_every_method():
    text = next(f for f in dataclasses.fields(SearchOptions) if f.name == "decoding_method").metadata["help"]
    named = {"alignment_length_sync_search"} if "alsd" in text else set()
    for entry in re.findall(r"[a-zA-Z0-9_-]+(?:\[[^]]*\])?", text):
        stem, _, endings = entry.rstrip("]").partition("[")
        named |= {stem, *(stem + ending for ending in endings.split("|"))}
    assert set(METHODS) <= named


@pytest.mark.parametrize(
    "name, value", [("blank_penalty", "nan"), ("context_score", "nan"), ("lm_scale", "inf"), ("beam", "nan")]
)
def test_values_that_are_no_numbers(name, value):
    flag = "--" + name.replace("_", "-")
    with pytest.raises(UserError, match=flag + " must be .*" + value):
        resolve_method(dataclasses.replace(SearchOptions(), **{name: float(value)}))


@pytest.mark.parametrize("lodr", [False, True])
def test_rescoring_writes_a_file_for_each_result(world, extras, capsys, lodr):
    method = "modified_beam_search_lm_rescore" + ("_LODR" if lodr else "")
    run(decode, world, False, "--decoding-method", method, *options(extras))
    folder = world / "exp-False" / method
    part = f"{MAIN}__{method}__beam-size-4_rnn-lm" + ("_LODR-2gram" if lodr else "")
    count = 28 * 19 if lodr else 40
    assert len(list(folder.glob(f"recogs-test-b-{method}_beam-size-4_nnlm_scale_*-{part}.txt"))) == count
    assert len(list(folder.glob(f"errs-test-b-{method}_beam-size-4_nnlm_scale_*-{part}.txt"))) == count
    summary = (folder / f"wer-summary-test-b-{part}.txt").read_text().splitlines()[1:]
    assert len(summary) == count and summary == sorted(summary, key=lambda line: float(line.split("\t")[1]))
    assert f"the best of {count} results is nnlm_scale_" in capsys.readouterr().out


def test_phrases_change_what_is_found(world, extras):
    beam = ["--decoding-method", "modified_beam_search"]
    run(decode, world, True, *CHUNKS, *beam, "--test-sets", "test-a")
    phrases = ["--context-file", str(extras / "phrases.txt"), "--context-score", "12"]
    run(decode, world, True, *CHUNKS, *beam, *phrases, "--test-sets", "test-a")
    run(streaming_decode, world, True, *CHUNKS, *beam, *phrases, "--test-sets", "test-a")
    folder, end = world / "exp-True" / "modified_beam_search", f"{MAIN}_chunk-16_left-context-32"
    plain = hypotheses(folder / f"recogs-test-a-{end}__modified_beam_search__beam-size-4.txt")
    biased = hypotheses(
        folder / f"recogs-test-a-{end}__modified_beam_search__beam-size-4-context-score-12.0.txt"
    )
    streamed = hypotheses(
        world
        / "exp-True"
        / "streaming"
        / "modified_beam_search"
        / f"recogs-test-a_num-active-paths-4_context-score-12.0_{end}.txt"
    )
    count = lambda found: sum(" ".join(words).count("W5 W2") for words in found.values())  # noqa: E731
    assert count(biased) > count(plain) and streamed == biased


def test_streaming_fast_beam_search(world):
    fast = ["--decoding-method", "fast_beam_search", "--test-sets", "test-a"]
    run(decode, world, True, *CHUNKS, *fast, "--beam", "4", "--max-contexts", "4", "--max-states", "32")
    run(streaming_decode, world, True, *CHUNKS, *fast)
    end, part = f"{MAIN}_chunk-16_left-context-32", "beam-4.0_max-contexts-4_max-states-32"
    simulated = hypotheses(world / "exp-True" / "fast_beam_search" / f"recogs-test-a-{end}_{part}.txt")
    real = hypotheses(
        world / "exp-True" / "streaming" / "fast_beam_search" / f"recogs-test-a_{part}_{end}.txt"
    )
    assert real == simulated and sum(map(len, real.values())) > 3


def test_token_ngram_as_a_graph(world, extras, tmp_path):
    """Without an ARPA file the graph is read, its backoff arcs labelled --backoff-id; the result is
    the same.
    """
    from asr_core.lm.grammar_fst import write_openfst_text
    from asr_core.lm.ngram import NgramLm

    symbols = {**{piece: i for i, piece in enumerate(PIECES)}, "#0": 77}
    write_openfst_text(NgramLm.from_arpa(extras / "2gram.arpa", symbols), tmp_path / "2gram.fst.txt", symbols)
    method = ["--decoding-method", "modified_beam_search_LODR", *options(extras), "--ngram-lm-scale", "-0.6"]
    name = (
        world
        / "exp-False"
        / method[1]
        / f"recogs-test-b-{MAIN}__{method[1]}__beam-size-4_rnn-lm-scale-0.3_LODR-2gram-scale--0.6.txt"
    )
    run(decode, world, False, *method)
    from_arpa = name.read_text()
    name.unlink()
    run(decode, world, False, *method, "--lang-dir", str(tmp_path), "--backoff-id", "77")
    assert name.read_text() == from_arpa


def test_the_graphs_weight_is_in_the_names(world, extras):
    for scale in ("0.3", "0.6"):
        run(
            decode,
            world,
            False,
            "--decoding-method",
            "fast_beam_search_LG",
            *options(extras),
            "--ngram-lm-scale",
            scale,
        )
        name = f"recogs-test-b-{MAIN}_beam-20.0_max-contexts-8_max-states-64_ngram-lm-scale-{scale}.txt"
        assert (world / "exp-False" / "fast_beam_search_LG" / name).is_file()


def test_options_without_effect_are_named(caplog):
    caplog.set_level("INFO")
    resolve_method(SearchOptions(num_paths=7), lm=LmOptions(lm_exp_dir="x", lm_epoch=3))
    assert caplog.messages == ["greedy_search does not use --num-paths, --lm-epoch, --lm-exp-dir"]
    caplog.clear()
    lodr = SearchOptions(decoding_method="modified_beam_search_LODR")
    resolve_method(lodr, lm=LmOptions(lm_exp_dir="x"))
    assert [m for m in caplog.messages if "give a negative weight" in m] == caplog.messages != []
    caplog.clear()
    resolve_method(dataclasses.replace(lodr, ngram_lm_scale=-0.2))
    resolve_method(SearchOptions(decoding_method="fast_beam_search_LG", ngram_lm_scale=0.3))
    assert not caplog.messages


def test_shallow_fusion_by_its_option(world, extras, capsys):
    run(
        decode,
        world,
        False,
        "--decoding-method",
        "modified_beam_search",
        "--use-shallow-fusion",
        "1",
        "--beam",
        "7",
        *options(extras),
    )
    assert (world / "exp-False" / "modified_beam_search_lm_shallow_fusion").is_dir()
    assert "modified_beam_search_lm_shallow_fusion does not use --beam" in capsys.readouterr().err


def test_transcribe_by_fast_beam_search(world, capsys):
    audio = sorted(map(str, (world / "a").glob("*.wav")))[:2]
    model = ["--model", str(world / "exp-False" / "epoch-1.pt")]
    transcribe.main(argv=[*model, "--method", "fast_beam_search", *audio])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == audio
    with pytest.raises(SystemExit):
        transcribe.main(argv=[*model, "--method", "modified_beam_search_LODR", *audio])
    assert "use decode.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    "method, more, message",
    [
        ("modified_beam_search_LODR", ["--lm-exp-dir", ""], "--lm-exp-dir"),
        ("modified_beam_search_LODR", ["--tokens-ngram", "3"], "3gram.arpa"),
        ("fast_beam_search_LG", ["--lang-dir", "/nowhere"], "LG.fst.txt"),
        ("modified_beam_search", ["--context-file", "/nowhere/phrases"], "--context-file: cannot read"),
        ("fast_beam_search", ["--max-states", "0"], "--max-states must be at least 1"),
        ("fast_beam_search", ["--beam", "-1"], "--beam must be above 0"),
    ],
)
def test_what_is_missing_gets_one_line(world, extras, capsys, method, more, message):
    with pytest.raises(SystemExit):
        run(decode, world, False, "--decoding-method", method, *options(extras), *more)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last


@pytest.mark.parametrize("method", ["beam_search", "fast_beam_search_LG"])
def test_methods_that_cannot_stream(world, capsys, method):
    with pytest.raises(SystemExit):
        run(streaming_decode, world, True, *CHUNKS, "--decoding-method", method)
    assert (
        f"{method} cannot stream; these can: greedy_search, modified_beam_search, fast_beam_search"
        in capsys.readouterr().err
    )
