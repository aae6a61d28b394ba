"""The list of an experiment's word error rates."""

import pytest

from asr_core.bin import list_results
from asr_core.text.scoring import Utterance, format_errs, score_utterances


def write(path, wrong):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        format_errs(score_utterances([Utterance("u", ["a"] * 10, ["b"] * wrong + ["a"] * (10 - wrong))]))
    )


@pytest.fixture
def exp_dir(tmp_path):
    write(tmp_path / "greedy_search" / "errs-test-epoch-4_avg-1.txt", 3)
    write(tmp_path / "streaming" / "greedy_search" / "errs-test_greedy-search_epoch-4_avg-1.txt", 4)
    for i, wrong in enumerate((5, 2, 6)):
        name = f"errs-test-rescore_beam-size-4_nnlm_scale_0.{i}0_lodr_scale_0.05-epoch-4_avg-1.txt"
        write(tmp_path / "rescore" / name, wrong)
    return tmp_path


def test_best_first_and_one_of_each_decoding(exp_dir, capsys):
    list_results.main([str(exp_dir), "--max-wer", "40"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:5] for line in lines] == [[f"{10 * n}.00", "0", "0", str(n), "10"] for n in (2, 3, 4)]
    assert lines[0][5:] == [
        "rescore/test-rescore_beam-size-4_nnlm_scale_0.10_lodr_scale_0.05-epoch-4_avg-1",
        "(best",
        "of",
        "3)",
    ]
    assert lines[1][5:] == ["greedy_search/test-epoch-4_avg-1"]


@pytest.mark.parametrize("make, options, message", [
    (lambda path: None, [], "no errs-*.txt"),
    (lambda path: (path / "errs-x.txt").write_text("nonsense"), [], "is no error report"),
    (lambda path: write(path / "errs-x.txt", 9), ["--max-wer", "50"], "is above 50 %"),
])  # fmt: skip
def test_mistakes(tmp_path, capsys, make, options, message):
    make(tmp_path)
    with pytest.raises(SystemExit) as stop:
        list_results.main([str(tmp_path), *options])
    assert stop.value.code == 1 and message in capsys.readouterr().err
