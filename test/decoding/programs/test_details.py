"""Output of decoding besides the words: times, confidences, n-best lists, reports."""

import json
from html.parser import HTMLParser

import pytest
from decode_programs import CHUNKS, check_times, hypotheses, records, run

from asr_core.bin import calibrate_confidence, decode, score, score_timestamps, streaming_decode
from asr_core.decoding.output.calibration import load_calibrations

GREEDY = "epoch-1_avg-1_context-2_max-sym-per-frame-1"
BEAM = "epoch-1_avg-1__modified_beam_search__beam-size-4"
DETAILS = ["--write-timestamps", "1", "--write-confidence", "1"]


def test_nbest_times_and_report(world, capsys):
    method = ["--decoding-method", "modified_beam_search", "--test-sets", "test-a"]
    run(
        decode,
        world,
        False,
        *method,
        *DETAILS,
        "--write-nbest",
        "3",
        "--html-report",
        "1",
        "--embed-audio",
        "1",
        "--cer",
        "1",
    )
    folder = world / "exp-False" / "modified_beam_search"
    recogs = hypotheses(folder / f"recogs-test-a-{BEAM}.txt")
    best = records(folder / f"timestamps-test-a-{BEAM}.jsonl")
    lists = records(folder / f"nbest-test-a-{BEAM}.jsonl")
    assert [r["id"] for r in best] == [r["id"] for r in lists] == sorted(recogs)
    check_times(best)
    for record, entry in zip(best, lists):
        assert record["text"].split() == recogs[record["id"]] and record["ref"] == entry["ref"] == "w5 w2 W3"
        assert record["confidence_kind"] == "modified_beam_search prob min"
        assert all(0 <= w["confidence"] <= 1 and "raw_confidence" not in w for w in record["words"])
        nbest = entry["nbest"]
        check_times([{**hyp, "duration": entry["duration"]} for hyp in nbest])
        assert 1 <= len(nbest) <= 3 and len({tuple(hyp["tokens"]) for hyp in nbest}) == len(nbest)
        assert any(
            {**hyp} == {k: record[k] for k in hyp} for hyp in nbest
        )  # the answer is among them, with its confidences
    assert sum(len(r["tokens"]) for r in best) > 10 and max(len(r["nbest"]) for r in lists) == 3
    page = (folder / f"report-test-a-{BEAM}.html").read_text()
    assert page.count("data:audio/wav;base64,") == len(recogs) and "CER %" in page
    HTMLParser().feed(page)
    assert capsys.readouterr().out.splitlines()[1].split()[-10:-5] == ["CER", "%", "right", "%", "RTF"]


def test_methods_without_nbest_are_refused(world, capsys):
    for program, options, message in (
        (decode, ["--write-nbest", "2"], "greedy_search has no n-best list; these have: "),
        (decode, ["--write-nbest", "-1"], "--write-nbest must be at least 0"),
        (decode, ["--embed-audio", "1"], "give --html-report 1, too"),
        (decode, ["--confidence-alpha", "1"], "--confidence-alpha"),
        (decode, ["--normalize", "upside-down"], "unknown normalization"),
    ):
        with pytest.raises(SystemExit):
            run(program, world, False, *options)
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_streaming_tells_what_simulated_streaming_tells(world):
    for program in (decode, streaming_decode):
        run(program, world, True, *CHUNKS, *DETAILS, "--test-sets", "test-a")
    exp_dir = world / "exp-True"
    suffix = "epoch-1_avg-1_chunk-16_left-context-32"
    simulated = records(
        exp_dir / "greedy_search" / f"timestamps-test-a-{suffix}_context-2_max-sym-per-frame-1.jsonl"
    )
    real = records(
        exp_dir / "streaming" / "greedy_search" / f"timestamps-test-a_greedy-search_{suffix}.jsonl"
    )
    check_times(simulated)
    assert sum(len(r["words"]) for r in simulated) > 5
    for a, b in zip(simulated, real):
        assert {k: a[k] for k in ("id", "tokens", "timestamps")} == {
            k: b[k] for k in ("id", "tokens", "timestamps")
        }
        for v, w in zip(a["words"], b["words"]):
            assert (v["w"], v["start"], v["end"]) == (w["w"], w["start"], w["end"])
            assert v["confidence"] == pytest.approx(w["confidence"], abs=2e-3)


def test_calibration_is_found_and_used(world, tmp_path, capsys):
    exp_dir = world / "exp-False"
    path = exp_dir / "greedy_search" / f"timestamps-test-a-{GREEDY}.jsonl"
    run(decode, world, False, "--write-confidence", "1", "--test-sets", "test-a")
    raw = records(path)
    for record in raw:  # untrained, so it is never right: let some words be
        record["ref"] = record["text"] if record["id"] < "a-4" else "none"
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(r) + "\n" for r in raw))
    capsys.readouterr()
    try:
        calibrate_confidence.main(
            [
                str(tmp_path / "dev.jsonl"),
                "--exp-dir",
                str(exp_dir),
                "--evaluate",
                str(tmp_path / "dev.jsonl"),
            ]
        )
        table = capsys.readouterr().out
        assert table.startswith("greedy_search prob min: p = sigmoid(") and "evaluated on" in table
        run(decode, world, False, "--write-confidence", "1", "--test-sets", "test-a")
        calibration = load_calibrations(exp_dir)["greedy_search prob min"]
        pairs = [(v, w) for a, b in zip(raw, records(path)) for v, w in zip(a["words"], b["words"])]
        assert len(pairs) == calibration.words > 5
        for before, after in pairs:
            assert after["raw_confidence"] == pytest.approx(before["confidence"], abs=1e-4)
            assert after["confidence"] == pytest.approx(calibration(after["raw_confidence"]), abs=1e-4)
        with pytest.raises(SystemExit):  # fitted on another measure
            calibrate_confidence.main([str(path.with_name("none.jsonl")), "--exp-dir", str(exp_dir)])
        (tmp_path / "empty.jsonl").write_text("")
        with pytest.raises(SystemExit):
            calibrate_confidence.main([str(tmp_path / "empty.jsonl"), "--exp-dir", str(exp_dir)])
        assert "empty.jsonl has no utterances" in capsys.readouterr().err
    finally:
        (exp_dir / "confidence.json").unlink(missing_ok=True)


def test_normalization_and_other_programs(world, capsys):
    run(decode, world, False, "--test-sets", "test-b", "--normalize", "lower", "--write-timestamps", "1")
    folder = world / "exp-False" / "greedy_search"
    recogs = folder / f"recogs-test-b-{GREEDY}.txt"
    assert recogs.read_text() == recogs.read_text().lower()
    table = capsys.readouterr().out.splitlines()
    score.main(["--hyp", str(recogs)])
    assert capsys.readouterr().out.splitlines()[3].split()[1:9] == table[3].split()[1:9]
    with pytest.raises(SystemExit):
        score_timestamps.main(
            [
                str(world / "fbank" / "noise_cuts_b.jsonl.gz"),
                str(folder / f"timestamps-test-b-{GREEDY}.jsonl"),
            ]
        )
    assert "has no word alignments" in capsys.readouterr().err
