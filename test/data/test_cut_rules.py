"""The rules that cuts must keep: what each drops, and what it must not drop."""

import json
import math

import pytest
from batches import data_options

from asr_core.data.cut_rules import FrameNeeds
from asr_core.data.cut_summary import text_of, view_of_line
from asr_core.data.filter import CutFilter, DropReport, subsampled_length
from asr_core.data.stream import LineStream
from asr_core.models.options import ModelOptions
from asr_core.training.loss_options import LossOptions
from asr_core.training.losses import frame_needs
from asr_core.utils.errors import UserError


def line_of(name="a", seconds=1.0, supervisions=None, recording=None, **fields):
    """Return the line of a cut that keeps all rules, but for the given fields."""
    if supervisions is None:
        supervisions = [{}]
    segments = [
        {
            "id": f"{name}-{i}",
            "recording_id": name,
            "start": 0.0,
            "duration": seconds,
            "channel": 0,
            "text": "one",
            **s,
        }
        for i, s in enumerate(supervisions)
    ]
    source = {"type": "file", "channels": [0], "source": f"{name}.wav"}
    data = {
        "id": name,
        "start": 0.0,
        "duration": seconds,
        "channel": 0,
        "supervisions": segments,
        "recording": {
            "id": name,
            "sources": [source],
            "sampling_rate": 16000,
            "num_samples": 16000 * int(seconds),
            "duration": seconds,
            **(recording or {}),
        },
        "type": "MonoCut",
        **fields,
    }
    return (json.dumps(data) + "\n").encode()


def reason_of(line, training=True, **options):
    """Return why a cut is dropped; "" if it is not."""
    report = DropReport()
    keep = CutFilter(data_options(on_the_fly_feats=True, **options), None, report, training=training)
    keep.count_tokens([view_of_line(line)])
    return next(iter(report.ids), "")


BROKEN = [  # fields of the cut, part of the reason, whether it cannot be decoded either
    ({"duration": math.nan}, "a duration that is no positive number", True),
    ({"duration": 0}, "a duration that is no positive number", True),
    ({"duration": -1.0}, "a duration that is no positive number", True),
    ({"duration": math.inf}, "a duration that is no positive number", True),
    ({"start": -1.0}, "a beginning before its recording's", True),
    ({"start": math.nan}, "a beginning before its recording's", True),
    ({"start": 0.5}, "an end after its recording's", True),
    ({"duration": 1.5}, "an end after its recording's", True),
    ({"recording": {"sampling_rate": -16000}}, "a sampling rate that is no positive number", True),
    ({"supervisions": [{"text": 5}]}, "a text that is no text", True),
    ({"supervisions": [{"text": ["one"]}]}, "a text that is no text", True),
    ({"supervisions": [{"start": -0.8}]}, "a supervision that begins before the cut", True),
    ({"supervisions": [{"duration": 1.8}]}, "a supervision that ends after the cut", True),
    ({"supervisions": [{"duration": math.nan}]}, "a supervision that ends after the cut", True),
    ({"supervisions": [{"duration": 0.0}]}, "a supervision that ends before it begins", True),
    ({"supervisions": [{"duration": 0.4}, {"start": 0.5, "duration": 0.4}]}, "several supervisions", True),
    ({"supervisions": [{"start": 0.5, "duration": 0.5}]}, "begins later than the cut", False),
    ({"supervisions": [{"text": " "}]}, "no text", False),
    ({"supervisions": []}, "no text", False),
    ({"seconds": 31.0}, "longer than 30 s", False),
]


@pytest.mark.parametrize("fields, reason, everywhere", BROKEN)
def test_cuts_that_make_no_sense_are_dropped_by_reason(fields, reason, everywhere):
    line = line_of(**fields)
    assert reason in reason_of(line)
    assert bool(reason_of(line, training=False)) == everywhere


@pytest.mark.parametrize(
    "fields", [{}, {"supervisions": [{"duration": 1.01}]}, {"supervisions": [{"start": -0.01}]}]
)
def test_cuts_that_are_only_rounded_are_kept(fields):
    assert reason_of(line_of(**fields)) == ""


def test_several_supervisions_are_joined_only_where_that_is_asked_for():
    apart = line_of(supervisions=[{"duration": 0.4}, {"start": 0.5, "duration": 0.4, "text": "two"}])
    assert reason_of(apart, join_supervisions=True) == "" and text_of(view_of_line(apart)) == "one two"
    over = line_of(supervisions=[{"duration": 0.6}, {"start": 0.5, "duration": 0.4}])
    assert reason_of(over, join_supervisions=True) == "supervisions that overlap"


def test_ids_that_come_again_are_dropped_and_counted(tmp_path):
    path = tmp_path / "cuts.jsonl"
    path.write_bytes(b"".join(map(line_of, ["a", "b", "a", "c"])))
    for training in (True, False):
        report = DropReport()
        keep = CutFilter(data_options(on_the_fly_feats=True), None, report, training=training)
        stream = LineStream(path, keep)
        assert [json.loads(ref.line)["id"] for _, ref in stream.items()] == ["a", "b", "c"]
        assert report.ids == {"an id that an earlier cut has": ["a again"]} and stream.survey()[0] == 3


@pytest.mark.parametrize(
    "bad, why",
    [
        (b'{"id": "x", "dura\n', "damaged or incomplete"),
        (b'{"id": "\xff"}\n', "damaged or incomplete"),
        (b'{"id": "x", "type": "MonoCut"}\n', "no field 'duration'"),
        (line_of(id=7), "its id is not text"),
        (line_of(duration="long"), "unsupported operand"),
        (b"\n", "damaged or incomplete"),
        (b"7\n", "no attribute"),
    ],
)
def test_a_line_that_is_no_cut_is_named_with_file_and_number(bad, why, tmp_path):
    path = tmp_path / "cuts.jsonl"
    path.write_bytes(line_of("a") + line_of("b") + bad + line_of("c"))
    with pytest.raises(UserError) as e:
        list(LineStream(path, None).items())
    assert f"{path}:3: " in str(e.value) and why in str(e.value) and "\n" not in str(e.value)


class _Letters:
    """A tokenizer with a token for each letter."""

    unk_id = 2

    def encode(self, texts):
        return [[ord(letter) for letter in text] for text in texts]


FRAMES = subsampled_length(100)  # of one second: 23


@pytest.mark.parametrize(
    "needs, text, kept",
    [
        (FrameNeeds(), "a" * FRAMES, True),
        (FrameNeeds(), "a" * (FRAMES + 1), False),
        (FrameNeeds(blanks=True), "ab" * (FRAMES // 2), True),
        (FrameNeeds(blanks=True), "a" * 12, True),  # 12 tokens and 11 blanks
        (FrameNeeds(blanks=True), "a" * 13, False),
        (FrameNeeds(tokens_per_frame=4), "a" * (4 * FRAMES), True),
        (FrameNeeds(tokens_per_frame=4), "a" * (4 * FRAMES + 1), False),
        (FrameNeeds(tokens_per_frame=math.inf), "a" * 1000, True),
    ],
)
def test_a_cut_needs_the_frames_that_the_losses_need(needs, text, kept):
    report = DropReport()
    keep = CutFilter(data_options(on_the_fly_feats=True), _Letters(), report, needs=needs)
    assert (keep.count_tokens([view_of_line(line_of(supervisions=[{"text": text}]))]) == [len(text)]) == kept
    assert kept == (not report.ids)
    if needs.blanks and not kept:
        assert report.ids == {"more tokens, and blanks between equal ones, than encoder frames": ["a"]}


def test_each_head_has_its_own_rule():
    transducer = ModelOptions()
    assert frame_needs(transducer, LossOptions()) == FrameNeeds(4)
    assert frame_needs(transducer, LossOptions(prune_range=2)) == FrameNeeds(1)
    assert frame_needs(ModelOptions(loss="full"), LossOptions()) == FrameNeeds(math.inf)
    both = ModelOptions(use_ctc=True)
    assert frame_needs(both, LossOptions()) == FrameNeeds(1, blanks=True)
    assert frame_needs(ModelOptions(use_ctc=True, use_transducer=False), LossOptions()).blanks
