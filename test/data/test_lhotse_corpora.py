"""Manifests of corpora that lhotse knows: its recipe is asked for one part, whatever it calls its
arguments.
"""

import lhotse.recipes
import pytest
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet
from manifests import read_cuts
from recordings import tone

from asr_core.bin import prepare_manifests


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A corpus of two recordings that lhotse has a recipe for: (folder, the calls of the recipe)."""
    calls = []
    (tmp_path / "toy/dev").mkdir(parents=True)
    for name in ("b", "a"):
        soundfile.write(tmp_path / f"toy/dev/{name}.wav", tone(0.3), 16000)

    def prepare_toy(corpus_dir, dataset_parts, num_jobs=1):
        calls.append((dataset_parts, num_jobs))
        recordings = [Recording.from_file(corpus_dir / f"dev/{name}.wav") for name in ("b", "a")]
        texts = [SupervisionSegment(r.id, r.id, 0.0, r.duration, text=f"text {r.id}") for r in recordings]
        made = {
            "recordings": RecordingSet.from_recordings(recordings),
            "supervisions": SupervisionSet.from_segments(texts),
        }
        return {"dev": made}

    monkeypatch.setattr(lhotse.recipes, "prepare_toy", prepare_toy, raising=False)
    return tmp_path / "toy", calls


def arguments(folder, target, *more):
    options = ["--corpus", "toy", "--corpus-dir", str(folder), "--output-dir", str(target)]
    return [*options, "--parts", "dev", *more]


def test_parts_are_written_sorted_and_once(toy, tmp_path):
    folder, calls = toy
    for _ in range(2):
        prepare_manifests.main(arguments(folder, tmp_path / "m", "--nj", "3"))
    assert calls == [(["dev"], 3)]
    cuts = list(read_cuts(tmp_path / "m/toy_cuts_dev.jsonl.gz"))
    assert [c.recording_id for c in cuts] == ["a", "b"] and cuts[0].supervisions[0].text == "text a"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--corpus", "none"], "lhotse knows no corpus 'none'"),
        (["--parts", "test"], "toy/test; run stage 0"),
        (["--parts", "empty"], "cannot make manifests: KeyError"),
    ],
)
def test_mistakes_are_one_line(toy, tmp_path, options, message, capsys):
    folder, _ = toy
    (folder / "empty").mkdir()
    with pytest.raises(SystemExit) as e:
        prepare_manifests.main(arguments(folder, tmp_path / "m", *options))
    assert e.value.code == 1 and message in capsys.readouterr().err
