"""The check of GPUs: it finds what is wrong, survives what breaks, and can be rehearsed without one."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from process_groups import wait_until

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from gpu_check import cases, part_kernels, parts, roofline, supervisor, targets, worker  # noqa: E402
from gpu_check.setup import Setup, child_environment, install_wheels  # noqa: E402

BREAKING = """
import os, sys, time, types
sys.path[:0] = {paths!r}
from gpu_check import parts, worker
from gpu_check.setup import Setup, Skipped
from pathlib import Path

def raises():
    raise ValueError("as\\nmeant")

def skips():
    raise Skipped("nothing here")

module = types.ModuleType("gpu_check.part_fake")
module.items = lambda setup: {{
    "first": lambda: {{"value": 1.5}},
    "dies": lambda: os._exit(9),
    "raises": raises,
    "hangs": lambda: time.sleep(100),
    "skips": skips,
    "fails": lambda: {{"ok": False, "note": "measured"}},
    "last": lambda: {{}},
}}
sys.modules["gpu_check.part_fake"] = module
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
part = parts.Part("fake", "part_fake", "", 0, 30)
setup = Setup(True, Path(args["--out"]), Path(args["--work-dir"]))
import json
sys.exit(worker.work(part, setup, Path(args["--records"]), json.loads(args["--skip"])))
"""


def test_what_breaks_costs_only_itself(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(BREAKING.format(paths=[str(HERE), str(HERE.parents[1])]))
    setup = Setup(True, tmp_path, tmp_path)
    run = supervisor.Run(
        setup, supervisor.Limits(60, 0, 2), [sys.executable, str(script)], dict(os.environ), ""
    )
    status = run.all([parts.Part("fake", "part_fake", "all that can happen", 0, 30, item_limit=0.5)])
    rows = {
        row["item"]: row for row in json.loads((tmp_path / "check.json").read_text())["parts"]["fake"]["rows"]
    }
    assert status == 1
    assert {name: row["ok"] for name, row in rows.items()} == {
        "first": True,
        "dies": False,
        "raises": False,
        "hangs": False,
        "skips": None,
        "fails": False,
        "last": True,
    }
    assert rows["first"]["value"] == 1.5
    assert "status 9" in rows["dies"]["note"] and "in time" in rows["hangs"]["note"]
    assert rows["raises"]["note"] == "ValueError: as meant"
    assert "| last | yes |" in (tmp_path / "check.md").read_text()


SLOW = """
import sys, time, types
sys.path[:0] = {paths!r}
from gpu_check import parts, supervisor, worker
from gpu_check.setup import Setup
from pathlib import Path
import json

module = types.ModuleType("gpu_check.part_fake")
module.items = lambda setup: {{
    "quick": lambda: {{"value": 1.5}},
    "slow": lambda: time.sleep(60),
    "never": lambda: {{}},
}}
sys.modules["gpu_check.part_fake"] = module
part = parts.Part("fake", "part_fake", "", 0, 30)
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "--work" in args:
    setup = Setup(True, Path(args["--out"]), Path(args["--work-dir"]))
    sys.exit(worker.work(part, setup, Path(args["--records"]), json.loads(args["--skip"])))
setup = Setup(True, Path(args["--out"]), Path(args["--out"]))
limits = supervisor.Limits(float(args["--seconds"]), 0, 1)
sys.exit(supervisor.Run(setup, limits, [sys.executable, __file__], None, "").all([part]))
"""


def slow_check(folder, seconds):
    """Start a check whose second item takes a minute."""
    script = folder / "slow.py"
    script.write_text(SLOW.format(paths=[str(HERE), str(HERE.parents[1])]))
    command = [sys.executable, str(script), "--out", str(folder), "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def rows_of(folder):
    """The rows of the part, as far as they were written."""
    path = folder / "check.json"
    parts = json.loads(path.read_text())["parts"] if path.exists() else {}
    return {row["item"]: row for row in parts.get("fake", {}).get("rows", [])}


def test_it_ends_in_time_with_what_it_has(tmp_path):
    check = slow_check(tmp_path, 6)
    output = check.communicate(timeout=50)[0]
    rows = rows_of(tmp_path)
    assert (rows["quick"]["ok"], rows["quick"]["value"]) == (True, 1.5)
    assert rows["slow"]["ok"] is None and "cut off" in rows["slow"]["note"]
    assert rows["never"]["ok"] is None and "not reached" in rows["never"]["note"]
    assert check.returncode == 1 and "0 red, 2 not reached" in output


def test_a_killed_check_leaves_what_it_had_found(tmp_path):
    check = slow_check(tmp_path, 60)
    wait_until(lambda: "quick" in rows_of(tmp_path), 50.0)
    check.kill()
    check.communicate()
    assert rows_of(tmp_path)["quick"]["value"] == 1.5
    assert "| quick | yes | 1.5 |" in (tmp_path / "check.md").read_text()


def test_stages_leave_time_for_later_ones():
    stages = [part.stage for part in parts.PARTS]
    assert stages == sorted(stages) and [parts.ENDS[stage] for stage in sorted(set(stages))][-1] == 1.0
    assert sorted(parts.ENDS.values()) == [parts.ENDS[stage] for stage in sorted(parts.ENDS)]


def test_verdicts_of_the_figures_that_matter():
    step = {"item": "medium, bfloat16", "ok": True, "faster than plain by": 1.9, "optimizer share": 0.04}
    run = {"item": "whole run", "ok": True}
    found = {"steps": {"rows": [step]}, "training-float16": {"rows": [run]}}
    verdicts = [
        (row["measured"], row["wanted"], row["verdict"])
        for row in targets.verdicts(found)
        if row["verdict"] != targets.UNKNOWN
    ]
    assert verdicts == [
        ("1.9", "at least 2", "**no**"),
        ("0.04", "at most 0.05", "yes"),
        ("", "green", "yes"),
    ]
    assert targets.missed(found) == [targets.TARGETS[0].about]
    assert targets.missed({}) == []


def test_every_figure_that_matters_has_an_item(tmp_path):
    real = Setup(False, tmp_path, tmp_path)
    items = {part.name: worker.items_of(part, real) for part in parts.PARTS}
    missing = [t.about for t in targets.TARGETS if t.item not in items[t.part]]
    assert missing == []


WITHOUT = """
import sys
sys.path[:0] = {paths!r}
sys.modules.update({{name: None for name in {missing!r}}})
from gpu_check import parts, worker
from gpu_check.setup import Setup, Skipped
from pathlib import Path
for part in parts.PARTS:
    items = worker.items_of(part, Setup(False, Path("."), Path(".")))
    if list(items) == ["start"]:
        print(part.name)
"""


def test_parts_without_lhotse_and_soundfile(tmp_path):
    missing = ["lhotse", "soundfile", "kaldialign", "sentencepiece", "espeakng_loader"]
    code = WITHOUT.format(paths=[str(HERE), str(HERE.parents[1])], missing=missing)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["kernels-data", "models", "rtfx", "more-rtfx"]


def test_a_part_that_cannot_start_is_red(tmp_path):
    setup = Setup(True, tmp_path, tmp_path)
    command = [sys.executable, "-c", "import no_such_module"]
    run = supervisor.Run(setup, supervisor.Limits(60, 0, 1), command, dict(os.environ), "")
    assert run.all([parts.Part("fake", "part_fake", "", 0, 30)]) == 1
    (row,) = run.results["parts"]["fake"]["rows"]
    assert row["ok"] is False and "no_such_module" in row["note"]


def case_of(ours, **changes):
    usual = dict(
        name="double",
        make=lambda draw, s: [draw.normal(s["n"])],
        ours=ours,
        plain=lambda x: 2 * x,
        tiny={"n": 5},
        odd={"n": 5},
        bench={"n": 5},
        forward=lambda s: cases.Work(s["n"], s["n"], s["n"]),
        must=False,
    )
    return cases.Case(**{**usual, **changes})


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, dy):
        return 2.1 * dy


def _half_written(x):
    y = torch.empty_like(x)
    y[:3] = 2 * x[:3]
    return y


@pytest.mark.parametrize(
    "ours, changes, finding",
    [
        (lambda x: 2 * x, {}, ""),
        (lambda x: 2.01 * x, {}, "differs"),
        (_WrongGradient.apply, {}, "gradient 0"),
        (_half_written, {}, "inf"),
        (lambda x: 2 * x, {"must": True}, "no Triton kernel ran"),
    ],
)
def test_a_wrong_kernel_is_found(ours, changes, finding, tmp_path):
    row = part_kernels.check(Setup(True, tmp_path, tmp_path), case_of(ours, **changes), "float32")
    assert (row.get("ok", True), finding in row["note"]) == (not finding, True)


def test_the_least_time_follows_from_bytes_or_operations():
    h100 = roofline.peak_of("NVIDIA H100 80GB HBM3")
    copy = cases.Work(read=3.35e9, written=3.35e9, flops=1)
    assert roofline.floor_ms(copy, "bfloat16", h100) == pytest.approx(4.0)
    product = cases.Work(read=1, written=1, flops=989e9, matrix=True)
    assert roofline.floor_ms(product, "bfloat16", h100) == pytest.approx(1.0)
    assert roofline.floor_ms(product, "float32", h100) == pytest.approx(989 / 67)
    assert roofline.peak_of("NVIDIA H200").bandwidth == 4800
    assert "| SwooshL |" in roofline.table()


def test_the_estimates_are_in_the_documentation():
    text = (HERE.parents[1] / "docs/gpu.md").read_text()
    missing = [line for line in roofline.table().splitlines() if line not in text]
    assert not missing, "docs/gpu.md has not what check.py --roofline prints:\n" + "\n".join(missing)


def wheel(folder, name, content="value = 3\n"):
    """Write a wheel of one module."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as f:
        f.writestr(f"{name}.py", content)
        f.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        f.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        f.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_wheels_of_missing_packages_are_installed(tmp_path):
    wheel(tmp_path, "made_up_for_a_test")
    wheel(tmp_path, "numpy", "raise ImportError('the one that is here already stays')")
    (tmp_path / "damaged-1.0-py3-none-any.whl").write_bytes(b"no wheel")
    site = tmp_path / "site"
    note = install_wheels(tmp_path, site)
    assert "damaged" in note and "made_up" not in note
    assert (site / "made_up_for_a_test.py").exists() and not (site / "numpy.py").exists()
    env = child_environment(Setup(True, tmp_path, tmp_path), HERE, site)
    code = "import made_up_for_a_test, numpy, gpu_check, asr_core; print(made_up_for_a_test.value)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "3\n"
    assert "no wheels" in install_wheels(tmp_path / "nowhere", site)


def rehearse(tmp_path, *options):
    setup = Setup(True, tmp_path, tmp_path)
    command = [
        sys.executable,
        str(HERE / "check.py"),
        "--small",
        "1",
        "--out",
        str(tmp_path / "out"),
        *options,
    ]
    env = child_environment(setup, HERE, tmp_path / "none")
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done, json.loads((tmp_path / "out/check.json").read_text())["parts"]


def test_rehearsal_of_the_kernels(tmp_path):
    done, found = rehearse(tmp_path, "--parts", "card,kernels-activations")
    assert done.returncode == 0, done.stdout
    assert set(found) == {"card", "kernels-activations"}
    swoosh = next(row for row in found["kernels-activations"]["rows"] if row["item"] == "SwooshL, float32")
    assert swoosh["ok"] and swoosh["launches"] >= 2 and swoosh["error"] < 1e-6


@pytest.mark.slow
def test_rehearsal_of_everything(tmp_path):
    done, found = rehearse(tmp_path, "--seconds", "3000", "--jobs", "2")
    assert done.returncode == 0, done.stdout
    assert set(found) == {part.name for part in parts.PARTS}
