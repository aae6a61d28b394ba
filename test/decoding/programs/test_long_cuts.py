"""decode.py on cuts that are longer than its windows: all kinds of results, and times."""

import pytest
from decode_programs import check_times, hypotheses, options, records, run

from asr_core.bin import ctc_decode, decode

SECOND = ["--max-segment", "1"]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_times_and_records(world, causal, method, capsys):
    more = ["--write-timestamps", "1", "--write-confidence", "1", "--decoding-method", method]
    run(decode, world, causal, *SECOND, *more, "--test-sets", "test-a")
    (path,) = (world / f"exp-{causal}" / method).glob("timestamps-test-a-*.jsonl")
    found = records(path)
    check_times(found)
    assert len(found) == 7 and any(record["timestamps"][-1:] > [1.0] for record in found)
    assert "test-a: 6 utterances longer than --max-segment 1 s were decoded in windows: a-1" in (
        capsys.readouterr().err
    )
    (recogs,) = (world / f"exp-{causal}" / method).glob("recogs-test-a-*.txt")
    assert hypotheses(recogs) == {record["id"]: record["text"].split() for record in found}


@pytest.mark.parametrize(
    "method", ["ctc-decoding", "ctc-prefix-beam-search", "attention-decoder-rescoring-no-ngram"]
)
def test_methods_of_ctc(world, heads, method):
    run(ctc_decode, world, heads, *SECOND, "--decoding-method", method, "--test-sets", "test-b")
    assert list((world / f"exp-{heads}" / method).glob("wer-summary-test-b-*"))


def test_rescoring_with_language_models(world, extras):
    method = "modified_beam_search_lm_rescore"
    run(decode, world, False, *SECOND, "--decoding-method", method, *options(extras))
    assert len(list((world / "exp-False" / method).glob("recogs-test-b-*"))) == 40
