"""Schedules against their formulas and published values, and the options that choose them."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from asr_core.bin import train
from asr_core.data.corpus import Corpus
from asr_core.training.optimizer_options import OptimizerOptions, refuse_unused
from asr_core.training.schedule import build_scheduler
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of, from_params


def schedule(**options):
    opts = OptimizerOptions(**options)
    opts.validate()
    return build_scheduler(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=opts.peak_lr()), opts)


def rates(scheduler, batches):
    found = []
    for batch in batches:
        scheduler.step_batch(batch)
        found.append(scheduler.get_last_lr()[0])
    return found


def test_noam_of_a_large_conformer():
    scale, warmup = 0.22097, 10000
    scheduler = schedule(
        schedule="noam", base_lr=scale / warmup**0.5, warmup_batches=float(warmup), noam_offset=1.0
    )
    batches = [1, 100, 1000, 5000, 9999, 40000, 100000, 500000]
    found = rates(scheduler, batches)
    assert found == pytest.approx(
        [4.419e-7, 2.232e-5, 2.212e-4, 1.105e-3, 2.210e-3, 1.105e-3, 6.988e-4, 3.125e-4], rel=5e-4
    )
    assert found == pytest.approx(
        [scale * min((s + 1) * warmup**-1.5, (s + 1) ** -0.5) for s in batches], rel=1e-12
    )
    around = rates(scheduler, [9998, 9999, 10000])
    assert max(around) == around[1]


@pytest.mark.parametrize(
    "scale, dim, peak", [(1, 640, 3.227e-4), (1, 320, 4.564e-4), (2, 320, 9.129e-4), (8, 320, 0.0025)]
)
def test_noam_of_contextnet_with_its_limit(scale, dim, peak):
    base_lr = scale * dim**-0.5 * 15000**-0.5
    scheduler = schedule(schedule="noam", base_lr=base_lr, warmup_batches=15000.0, noam_max_lr=0.0025)
    batches = [1, 7500, 15000, 30000, 10**6]
    want = [min(0.0025, scale * dim**-0.5 * min(t**-0.5, t * 15000**-1.5)) for t in batches]
    found = rates(scheduler, batches)
    assert found == pytest.approx(want, rel=1e-12) and max(found) == pytest.approx(peak, rel=5e-4)


def test_the_limit_falls_with_the_rate_of_a_recovered_run():
    scheduler = schedule(schedule="noam", base_lr=0.01, warmup_batches=100.0, noam_max_lr=0.0025)
    scheduler.optimizer.param_groups[0]["base_lr"] *= 0.5
    assert rates(scheduler, [100]) == [pytest.approx(0.00125)]


def test_warmup_hold_decay():
    common = dict(
        schedule="hold",
        base_lr=0.1,
        warmup_batches=10.0,
        warmup_start=0.2,
        hold_batches=20,
        decay_batches=40,
        decay_to=0.01,
    )
    batches = [0, 5, 10, 30, 50, 70, 1000]
    assert rates(schedule(**common), batches) == pytest.approx([0.02, 0.06, 0.1, 0.1, 0.01, 0.001, 0.001])
    straight = schedule(**common, decay_shape="polynomial")
    assert rates(straight, batches) == pytest.approx([0.02, 0.06, 0.1, 0.1, 0.0505, 0.001, 0.001])
    square = schedule(**common, decay_shape="polynomial", decay_power=2.0)
    assert rates(square, [50]) == pytest.approx([0.001 + 0.099 * 0.25])
    assert rates(schedule(**{**common, "decay_batches": 0}), [10**6]) == pytest.approx([0.1])


PING = "1:2e-4,9:5e-4:linear,190:5e-4,400:1e-5:loglinear"


@pytest.mark.parametrize("split", [0, 1, 40])
def test_pieces_by_batches_epochs_and_parts_of_epochs(split):
    scheduler = schedule(
        schedule="piecewise", lr_pieces=PING, lr_unit="epoch" if split else "batch", epoch_split=split or 1
    )
    units = [1, 2, 10, 11, 200, 400, 600, 700]
    want = [2e-4, 2e-4 + 3e-4 / 9, 5e-4, 5e-4, 5e-4, 7.07e-5, 1e-5, 1e-5]
    for unit, rate in zip(units, want):
        if split == 0:
            scheduler.step_batch(unit)
            assert scheduler.get_last_lr() == [pytest.approx(rate, rel=2e-4)]
            continue
        epoch, part = divmod(unit - 1, split)
        scheduler.step_epoch(epoch)
        for share in (part / split + 1e-9, (part + 1) / split - 1e-9):
            scheduler.step_batch(12345, epoch_share=share)
            assert scheduler.get_last_lr() == [pytest.approx(rate, rel=2e-4)]
    # The data turned out to be more than was counted: it is still the epoch's last part.
    scheduler.step_batch(12346, epoch_share=1.0)
    assert split == 0 or scheduler.unit() == (scheduler.epoch + 1) * split


def test_loglinear_and_first_pieces():
    small = schedule(schedule="piecewise", lr_pieces="1:2e-4,18:5e-4,181:1e-5:loglinear")
    assert rates(small, [1, 2, 19, 20, 200]) == pytest.approx(
        [2e-4, 5e-4, 5e-4, 5e-4 * math.exp(math.log(0.02) / 181), 1e-5]
    )
    assert rates(schedule(schedule="piecewise", lr_pieces="4:1e-3:linear"), [1, 4, 5]) == pytest.approx(
        [2.5e-4, 1e-3, 1e-3]
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(schedule="piecewise"), "needs --lr-pieces"),
        (dict(schedule="piecewise", lr_pieces="3"), "'3' is not of the form"),
        (dict(schedule="piecewise", lr_pieces="3:0.1:cubic"), "there are const, linear, loglinear"),
        (dict(schedule="piecewise", lr_pieces="0:0.1"), "at least 1 unit"),
        (dict(schedule="piecewise", lr_pieces="3:0.1:loglinear"), "from a rate above 0"),
        (dict(schedule="piecewise", lr_pieces="3:0"), "a rate above 0"),
        (dict(schedule="noam", warmup_batches=0.0), "rises over --warmup-batches"),
        (dict(decay_to=0.0), "--decay-to 0 is never reached exponentially"),
        (dict(epoch_split=0), "--epoch-split must be at least 1"),
    ],
)
def test_mistakes_are_reported_in_one_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        from_params(OptimizerOptions, changes).validate()
    assert "\n" not in str(caught.value)


class Nothing(Corpus):
    name = "nothing"


def parsed(*argv, **defaults):
    return train.parse(Nothing, defaults=defaults, argv=list(argv))


@pytest.mark.parametrize(
    "argv, message",
    [
        (
            "--schedule noam --lr-batches 100",
            "--lr-batches is an option of --schedule eden or eden2, and this is noam",
        ),
        ("--noam-offset 1", "--noam-offset is an option of --schedule noam, and this is eden"),
        (
            "--clip-grad-norm 1",
            "--clip-grad-norm is an option of --optimizer adam or adamw, and this is scaled_adam",
        ),
        (
            "--optimizer adamw --base-lr 0.001 --l2 1e-6",
            "--l2 is an option of --optimizer adam, and this is adamw",
        ),
        (
            "--optimizer adam --base-lr 0.001 --clipping-scale 1",
            "--clipping-scale is an option of --optimizer scaled_adam",
        ),
        ("--optimizer adam", "--optimizer adam needs a --base-lr of its own: it is absolute"),
        (
            "--schedule piecewise --lr-pieces 3:0.1 --base-lr 0.1",
            "--base-lr is an option of --schedule eden or",
        ),
        (
            "--schedule piecewise --lr-pieces 3:0.1 --epoch-split 4",
            "--epoch-split is an option of --lr-unit epoch, and this is batch",
        ),
    ],
)
def test_options_without_an_effect_are_refused(argv, message):
    with pytest.raises(UserError, match=message):
        parsed(*argv.split())


def test_the_commands_of_the_docs():
    text = (
        (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8").replace("\\\n", " ")
    )
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("train.py --optimizer")]
    assert len(commands) >= 4
    for command in commands:
        opts = from_params(OptimizerOptions, parsed(*command))
        opts.validate()
        assert opts.optim != "scaled_adam"


def test_what_a_recipe_has_as_default_is_no_mistake():
    recipe = dict(lr_batches=300.0, clipping_scale=1.0, base_lr=0.03)
    given = parsed("--optimizer", "adam", "--base-lr", "0.001", "--schedule", "noam", **recipe)
    assert (given.optim, given.schedule, given.base_lr, given.lr_batches) == ("adam", "noam", 0.001, 300.0)
    adam = dict(optim="adam", base_lr=0.002, l2=1e-6, schedule="noam", warmup_batches=1000.0)
    assert parsed(**adam).base_lr == 0.002
    with pytest.raises(UserError, match="relative to the sizes of the parameters"):
        parsed("--optim", "scaled_adam", **adam)
    refuse_unused(defaults_of(OptimizerOptions), dataclasses.asdict(OptimizerOptions()))
