"""Times, confidences and n-best lists of every method."""

import pytest
from decode_programs import GRAPH_METHODS, check_times, hypotheses, options, records, run

from asr_core.bin import ctc_decode, decode
from asr_core.decoding.registry import METHODS

MANY = {"modified_beam_search_lm_rescore_LODR"}  # 532 results


@pytest.mark.parametrize("method", [name for name in METHODS if name not in MANY])
def test_details(world, heads, lang, extras, method):
    graph = method in GRAPH_METHODS
    where = (
        ["--lang-dir", str(lang), "--lm-dir", str(lang), "--test-sets", "test-b"]
        if graph
        else options(extras)
    )
    wanted = ["--write-timestamps", "1", "--write-confidence", "1"]
    lists = METHODS[method].nbest
    run(
        ctc_decode if graph else decode,
        world,
        heads,
        "--decoding-method",
        method,
        *where,
        *wanted,
        "--write-nbest",
        "3" if lists else "0",
    )
    folder = world / "exp-heads" / method
    for path in folder.glob("timestamps-*.jsonl"):
        found = records(path)
        check_times([r for r in found if all(w["start"] is not None for w in r["words"])])
        words = hypotheses(path.with_name("recogs" + path.stem[len("timestamps") :] + ".txt"))
        assert {r["id"]: r["text"].split() for r in found} == words
        for record in found:
            assert all("confidence" in w for w in record["words"] if w["start"] is not None)
    assert len(list(folder.glob("timestamps-*"))) == len(list(folder.glob("recogs-*"))) > 0
    for path in folder.glob("nbest-*.jsonl"):
        for record in records(path):
            scores = [hyp["log_prob"] for hyp in record["nbest"]]
            assert 1 <= len(scores) <= 3 and len({tuple(hyp["tokens"]) for hyp in record["nbest"]}) == len(
                scores
            )
    assert len(list(folder.glob("nbest-*"))) == lists
