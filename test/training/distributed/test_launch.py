"""Places of processes, ports, and the supervision of ranks."""

import multiprocessing
import os
import re
import socket
from types import SimpleNamespace

import pytest

from asr_core.training.distributed import launch
from asr_core.training.distributed.launch import RankInfo, free_port, rank_info_from_environment
from asr_core.training.options import ProcessOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of


def test_places_come_from_the_environment(monkeypatch):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert rank_info_from_environment(4) is None
    for name, value in zip(names, ("5", "8", "1", "4", "node0", "29500")):
        monkeypatch.setenv(name, value)
    assert (
        rank_info_from_environment()
        == rank_info_from_environment(8)
        == RankInfo(5, 8, 1, 4, "env://", spawned=False)
    )
    with pytest.raises(UserError, match="--world-size 2, but the launcher started 8 processes"):
        rank_info_from_environment(2)


def test_a_rank_whose_launcher_is_gone_ends_at_once():
    context = multiprocessing.get_context("fork")
    rank = context.Process(target=launch._rank_main, args=(os.getppid(), RankInfo(), os._exit))
    rank.start()
    rank.join(10)
    assert rank.exitcode == launch.EXIT_PEER_LOST


def test_a_port_that_is_taken_gives_way():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        taken = s.getsockname()[1]
        assert free_port(taken) not in (0, taken)
    assert free_port(taken) == taken


def test_runs_that_start_at_once_do_not_meet_at_the_default_port(monkeypatch):
    addresses = []

    class Started(Exception):
        pass

    def process(target, args, name):
        addresses.append(args[1].address)
        raise Started

    monkeypatch.setattr(launch, "get_context", lambda method: SimpleNamespace(Process=process))
    for _ in range(2):
        with pytest.raises(Started):
            launch.spawn(print, (), 2, defaults_of(ProcessOptions)["master_port"])
    assert len({*addresses, "tcp://127.0.0.1:12354"}) == 3


@pytest.mark.parametrize(
    "name, value",
    [
        ("RANK", "x"),
        ("RANK", "-1"),
        ("RANK", "2"),
        ("RANK", ""),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", "many"),
        ("LOCAL_RANK", "1.5"),
        ("LOCAL_RANK", "2"),
        ("LOCAL_WORLD_SIZE", "nan"),
        ("MASTER_PORT", "99999999"),
        ("MASTER_PORT", "port"),
    ],
)
def test_nonsense_of_a_launcher_is_named(monkeypatch, name, value):
    usual = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for variable, text in {**usual, "MASTER_ADDR": "localhost", "MASTER_PORT": "12355", name: value}.items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(
        UserError, match=f"the environment variable {name} is '{re.escape(value)}' instead of"
    ):
        rank_info_from_environment()
