"""What is particular to a corpus: where its cuts are, its sets, its text."""

import argparse
import logging
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from asr_core.text.normalize import normalize_text
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike


def manifest_places(manifest_dir: PathLike, name: str, strategy: str) -> List[Path]:
    """Where a manifest may be: in ``manifest_dir``; if features are computed while loading, also beside it in ``manifests``."""
    folder = Path(manifest_dir)
    beside = [] if strategy == "PrecomputedFeatures" else [folder.parent / "manifests" / name]
    return [folder / name, *beside]


def open_cuts(name: PathLike, manifest_dir: PathLike, strategy: str) -> Any:
    """The cuts of a manifest or a Shar folder, in ``manifest_dir`` or elsewhere, read lazily.

    Raises:
      UserError: there is none of that name.
    """
    from lhotse import CutSet

    import asr_core.data.storage  # noqa: F401  (registers the reader of stored features)
    from asr_core.data.shar import open_shar

    places = [*manifest_places(manifest_dir, str(name), strategy), Path(name)]
    for path in places:
        if path.is_dir():
            return open_shar(path)
        if path.is_file():
            return CutSet.from_jsonl_lazy(path)
    raise UserError(f"no such cuts: {' or '.join(map(str, places))}; prepare them, or give others")


class Corpus:
    """A corpus whose cuts are in ``<manifest_dir>/<prefix>_cuts_<part>.jsonl.gz``.

    A recipe subclasses it and sets the class attributes; where that does not suffice it overrides the methods.

    Attributes:
      name: the recipe's name, as in ``egs/<name>/ASR``.
      defaults: defaults of this recipe, by option name.
      train_parts, valid_parts: parts that are joined for training and validation.
      test_parts: names of test sets and their parts.
      scoring_normalization: how words are changed before they are compared, see :func:`~asr_core.text.normalize.normalize_text`.
    """

    name: str = ""
    defaults: Dict[str, Any] = {}
    train_parts: Sequence[str] = ("train",)
    valid_parts: Sequence[str] = ("valid",)
    test_parts: Mapping[str, str] = {"test": "test"}
    scoring_normalization: str = "none"

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this corpus has; by default none."""

    @property
    def prefix(self) -> str:
        """How the names of the manifests begin."""
        return self.name

    def train_cuts(self) -> Any:
        """The training cuts, a lazy CutSet."""
        return self._join(self.train_parts)

    def valid_cuts(self) -> Any:
        """The validation cuts, a lazy CutSet."""
        return self._join(self.valid_parts)

    def test_sets(self) -> Dict[str, Any]:
        """Test sets by name."""
        return {name: self.cuts(part) for name, part in self.test_parts.items()}

    def normalize(self, text: str) -> str:
        """A transcript, as the model is to write it and as it is scored."""
        return normalize_text(text)

    def cuts(self, part: str) -> Any:
        """One part, read lazily: from ``<shar_dir>/<part>`` if there is such a folder, else from its manifest.

        With features computed while loading, the manifest without features does: see :func:`manifest_places`.

        Raises:
          UserError: there is neither, or ``shar_dir`` does not exist.
        """
        from lhotse import CutSet

        import asr_core.data.storage  # noqa: F401  (registers the reader of stored features)
        from asr_core.data.shar import open_shar

        shar_dir = Path(self.params.get("shar_dir") or "")
        if self.params.get("shar_dir") and not shar_dir.is_dir():
            raise UserError(f"no folder --shar-dir {shar_dir}; prepare.sh --shar-dir writes it in stage 3")
        if self.params.get("shar_dir") and (shar_dir / part).is_dir():
            logging.info("%s is read from %s", part, shar_dir / part)
            return open_shar(shar_dir / part)
        places = manifest_places(
            self.params["manifest_dir"], f"{self.prefix}_cuts_{part}.jsonl.gz", self._strategy
        )
        for path in places:
            if path.is_file():
                return CutSet.from_jsonl_lazy(path)
        raise UserError(f"no {' or '.join(map(str, places))}; run the recipe's prepare.sh first")

    def manifest(self, name: str) -> Any:
        """Any other cuts; see :func:`open_cuts`."""
        return open_cuts(name, self.params["manifest_dir"], self._strategy)

    def named_manifests(self, text: str, flag: str) -> Dict[str, Any]:
        """The cuts of ``NAME=MANIFEST,...`` by name.

        Raises:
          UserError: ``text``, which ``flag`` gave, has another form, or there are no such cuts.
        """
        sets = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, found, path = entry.partition("=")
            if not (name and found and path):
                raise UserError(f"{flag} {entry!r}: expected NAME=MANIFEST")
            sets[name] = self.manifest(path)
        return sets

    @property
    def _strategy(self) -> str:
        return (
            "OnTheFlyFeatures"
            if self.params.get("on_the_fly_feats")
            else self.params.get("input_strategy", "PrecomputedFeatures")
        )

    def _join(self, parts: Sequence[str]) -> Any:
        first, *rest = [self.cuts(part) for part in parts]
        for more in rest:
            first = first + more
        return first
