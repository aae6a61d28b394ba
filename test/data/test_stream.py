"""Streams: light reading changes nothing, and later passes are as the first."""

import pytest
from batches import data_options, lazy
from lhotse import CutSet
from lhotse.utils import fastcopy

from asr_core.data import stream as streams
from asr_core.data.cut_refs import load_cut
from asr_core.data.cut_summary import view_of_line
from asr_core.data.filter import CutFilter, DropReport
from asr_core.data.manifest import write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.data.stream import open_stream
from asr_core.utils.errors import UserError


def test_a_view_tells_what_the_cut_tells(feature_cuts, audio_cuts):
    for path in (feature_cuts, audio_cuts):
        with streams.open_lines(path) as lines:
            for line, cut in zip(lines, CutSet.from_jsonl_lazy(path)):
                for speed in (1.0, 0.9, 1.1):
                    if speed != 1.0 and path == feature_cuts:
                        continue
                    view, real = view_of_line(line, speed), cut if speed == 1.0 else cut.perturb_speed(speed)
                    assert (view.id, view.has_features) == (real.id, real.has_features) and abs(
                        view.duration - real.duration
                    ) < 1e-3
                    assert (
                        view.num_frames == (real.num_frames or 0)
                        and view.supervisions[0].text == real.supervisions[0].text
                    )


@pytest.mark.parametrize("line", ["{", '{"a": 1}', "[1, 2]", '{"type": "MonoCut", "id": "1"}'])
def test_a_line_that_is_no_cut_is_one_line_with_the_file(line, tmp_path):
    path = tmp_path / "cuts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match="cuts.jsonl:1: not a cut in JSON ") as e:
        list(streams.LineStream(path, None).items())
    assert "\n" not in str(e.value)


def test_later_passes_are_as_the_first(feature_cuts):
    report = DropReport()
    keep = CutFilter(data_options(min_duration=0.55), None, report)
    stream = open_stream(CutSet.from_jsonl_lazy(feature_cuts), keep)
    first = [(d, ref.line) for d, ref in stream.items()]
    keep.count_tokens = None  # would fail if it were asked again
    assert (
        first == [(d, ref.line) for d, ref in stream.items()]
        and len(first) == 40 - report.total == stream.survey()[0]
    )


def test_survey_counts_tokens_and_unknown_characters(feature_cuts, tmp_path):
    from asr_core.text.tokenizer import Tokenizer
    from asr_core.text.train_tokenizer import train_tokenizer

    (tmp_path / "text").write_text("one two three four five six seven eight nine zero\n")
    train_tokenizer(tmp_path / "text", tmp_path, 19, "char")
    tokenizer = Tokenizer.load(tmp_path)
    cuts = list(CutSet.from_file(feature_cuts))
    cuts[0].supervisions[0].text = "one é"
    write_cuts(cuts, tmp_path / "c.jsonl.gz")
    module = AsrDataModule(data_options(), 7, tokenizer)
    survey = module.survey(CutSet.from_jsonl_lazy(tmp_path / "c.jsonl.gz"))
    usable = [c for c in cuts if c.id not in {i for some in module.dropped.ids.values() for i in some}]
    assert survey.utterances == len(usable) < 40 and module.unknown == {"é": 1}
    assert survey.tokens == sum(len(tokenizer.encode([c.supervisions[0].text])[0]) for c in usable)
    assert abs(survey.seconds - sum(c.duration for c in usable)) < 1e-6


def test_another_speed_drops_stored_features_quietly(feature_cuts, audio_cuts, tmp_path, caplog):
    stored = CutSet.from_file(feature_cuts)[0].features
    copies = (
        (cut, fastcopy(stored, recording_id=cut.recording_id, duration=cut.duration))
        for cut in CutSet.from_file(audio_cuts)
    )
    cuts = [fastcopy(cut, features=features) for cut, features in copies]
    write_cuts(cuts, tmp_path / "both.jsonl.gz")
    for source in (lazy(tmp_path, "both"), CutSet.from_cuts(cuts)):
        for _, ref in open_stream(source, None).with_speed(0.9).items():
            cut = load_cut(ref)
            assert not cut.has_features and cut.id.endswith("_sp0.9")
    assert not caplog.text
