"""The report at the start of training."""

import logging

import torch
from fake_run import records
from tiny_program import train

from asr_core.training.reporting.startup_report import report_disk


def test_scan_and_report_of_the_program(prepared, tmp_path, capfd):
    from lhotse import CutSet

    for exp, flag in ("with", "1"), ("without", "0"):
        assert (
            train(prepared, tmp_path / exp, "--scan-for-oom", flag, "--num-epochs", "1", "--max-steps", "3")
            == 0
        )
        out = capfd.readouterr().err
        assert ("kinds of batches fit into memory" in out) == (flag == "1")
        assert "tokens per second" in out and "Training data: 0.00 hours in 11 utterances, 1.3 s each" in out
    assert records(tmp_path / "with") == records(tmp_path / "without")

    folder = tmp_path / "unk"
    folder.mkdir()
    for part in ("train", "valid"):
        cuts = list(CutSet.from_file(prepared / f"tiny_cuts_{part}.jsonl.gz"))
        cuts[3 if part == "train" else 0].supervisions[0].text = "ONE CAFÉ"
        CutSet.from_cuts(cuts).to_file(folder / f"tiny_cuts_{part}.jsonl.gz")
    argv = ["--manifest-dir", str(folder), "--max-steps", "1"]
    assert train(prepared, tmp_path / "refused", *argv) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert (
        last.startswith("error: 1 training cuts would give <unk>")
        and "in cut3. Correct the text" in last
        and "É" in last
    )
    CutSet.from_cuts(cut.drop_supervisions() for cut in cuts).to_file(folder / "tiny_cuts_valid.jsonl.gz")
    assert train(prepared, tmp_path / "empty", *argv, "--allow-unk", "1") == 1
    assert "error: Validation data: no cut can be used; dropped: " in capfd.readouterr().err
    cuts[0].supervisions[0].text = "ONE"
    CutSet.from_cuts(cuts).to_file(folder / "tiny_cuts_valid.jsonl.gz")
    assert train(prepared, tmp_path / "allowed", *argv, "--allow-unk", "1") == 0
    assert "characters that the tokens lack" in capfd.readouterr().err


def test_the_disk_report_counts_all_that_will_be_there(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = torch.nn.Linear(1000, 1000, bias=False)
    report_disk(model, tmp_path, 10, 5)
    assert (
        "20.0 MB each, at most 0.36 GB more for 10 epochs, the last 5" in caplog.text
    )  # 10 + 5, 2 best, 1 being written
    for n in (1, 2):
        (tmp_path / f"epoch-{n}.pt").write_bytes(b"")
    report_disk(model, tmp_path, 10, 5)
    assert "at most 0.32 GB more" in caplog.text
