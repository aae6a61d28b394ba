"""Processes that must not train together, because their options or versions differ."""

import subprocess
import sys

import fake_run
import pytest

from asr_core.training.distributed.agreement import facts_of, first_difference, refuse_differences
from asr_core.training.distributed.launch import RankInfo, free_port
from asr_core.utils.errors import UserError

PROGRAM = """
import json, logging, sys
import fake_run
from asr_core.cli.program import run_program
from asr_core.training.distributed import agreement
from asr_core.training.distributed.launch import rank_info_from_environment
from asr_core.training.distributed.world import run_in_group
from asr_core.training.options import ProcessOptions
from asr_core.utils.options import from_params

changes = json.loads(sys.argv[1])
if changes.pop("code", None):
    agreement._digest_of_code = lambda: "other"
params = fake_run.make_params("exp", **changes)
rank = rank_info_from_environment()
opts = from_params(ProcessOptions, {**params, "dist_timeout": 60.0})
run_program(lambda: sys.exit(run_in_group(rank, opts, lambda world: print("met") or 0, params)))
"""


def test_the_first_difference_is_named_with_both_values():
    params = {"base_lr": 0.045, "seed": 42, "num_workers": 2, "exp_dir": "a"}
    facts = facts_of(params, RankInfo(size=2), cuda=False)
    assert first_difference(facts, facts) == ""
    for change in ({"num_workers": 9}, {"exp_dir": "b"}):  # how a machine does its share is its own affair
        assert facts_of({**params, **change}, RankInfo(size=2), cuda=False) == facts
    other = facts_of({**params, "seed": 43, "base_lr": 0.01}, RankInfo(size=2), cuda=False)
    with pytest.raises(UserError) as raised:
        refuse_differences([facts, facts, other])
    assert str(raised.value).startswith("the processes differ in --base-lr: 0.045 on rank 0, 0.01 on rank 2")
    assert first_difference(facts, facts_of(params, RankInfo(size=3), cuda=False)) == "number of processes"
    assert first_difference(facts, facts_of(params, RankInfo(size=2), cuda=True)) == "device"
    assert first_difference(facts, facts_of({**params, "new": 1}, RankInfo(size=2), cuda=False)) == "--new"


@pytest.mark.parametrize(
    "changes, sizes, line",
    [
        ('{"base_lr": 0.01}', (2, 2), "--base-lr: 0.045 on rank 0, 0.01 on rank 1"),
        ('{"code": 1}', (2, 2), "differ in code: "),
        ("{}", (2, 3), "number of processes: 2 on rank 0, 3 on rank 1"),
        ("{}", (2, 2), ""),
    ],
)
def test_processes_that_differ_end_at_once_with_one_line_each(tmp_path, changes, sizes, line):
    port = str(free_port())
    ranks = []
    for rank, (size, own) in enumerate(zip(sizes, ("{}", changes))):
        place = dict(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        env = {**fake_run.environment(), **place, "GLOO_SOCKET_IFNAME": "lo"}
        argv = [sys.executable, "-c", PROGRAM, own]
        ranks.append(
            subprocess.Popen(
                argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    for process in ranks:
        out, err = process.communicate(timeout=100)
        errors = [text for text in err.splitlines() if text.startswith("error: ")]
        if line:
            assert process.returncode == 1 and out == "" and "Traceback" not in err
            assert len(errors) == 1 and "the processes differ in" in errors[0] and line in errors[0]
        else:
            assert process.returncode == 0 and out == "met\n" and not errors, err
