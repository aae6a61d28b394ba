"""A corpus: where its cuts are, its test sets, and its text."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Sequence

from asr_core.data.open_cuts import manifest_places, open_cuts, open_manifest, open_shar
from asr_core.text.normalize import normalize_text
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from lhotse import CutSet


class Corpus:
    """A corpus whose cuts are in ``<manifest_dir>/<prefix>_cuts_<part>.jsonl.gz``.

    A recipe subclasses it and sets the class attributes; where that does not suffice it overrides
    methods.

    Attributes:
      name: the recipe's name, as in ``egs/<name>/ASR``.
      defaults: defaults of this recipe, by option name.
      train_parts, valid_parts: parts that are joined for training and validation.
      test_parts: names of test sets and their parts.
      training_options: options of :meth:`add_arguments` that only training uses; ``--help`` of
        decoding leaves them out.
      scoring_normalization: normalization of words before they are compared, see
        :func:`~asr_core.text.normalize.normalize_text`.
    """

    name: str = ""
    defaults: Mapping[str, Any] = {}
    train_parts: Sequence[str] = ("train",)
    valid_parts: Sequence[str] = ("valid",)
    test_parts: Mapping[str, str] = {"test": "test"}
    training_options: Sequence[str] = ()
    scoring_normalization: str = "none"

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options that only this corpus has; by default none."""

    @property
    def prefix(self) -> str:
        """Prefix of the manifests' file names."""
        return self.name

    def train_cuts(self) -> "CutSet":
        """Open the training cuts, lazily."""
        return self._join(self.train_parts)

    def valid_cuts(self) -> "CutSet":
        """Open the validation cuts, lazily."""
        return self._join(self.valid_parts)

    def test_sets(self) -> Dict[str, "CutSet"]:
        """Open the test sets; returns them by name."""
        return {name: self.cuts(part) for name, part in self.test_parts.items()}

    def normalize(self, text: str) -> str:
        """Return a transcript as the model learns to write it and as it is scored."""
        return normalize_text(text)

    def cuts(self, part: str) -> "CutSet":
        """Open one part lazily: ``<shar_dir>/<part>`` if there is such a folder, else its manifest.

        If features are computed while loading, the manifest without features will do: see
        :func:`~asr_core.data.open_cuts.manifest_places`.

        Raises:
          UserError: there is neither, or ``shar_dir`` does not exist.
        """
        if self.params.get("shar_dir"):
            shar_dir = Path(self.params["shar_dir"])
            if not shar_dir.is_dir():
                raise UserError(
                    f"no folder --shar-dir {shar_dir}; prepare.sh --shar-dir writes it in stage 3"
                )
            if (shar_dir / part).is_dir():
                logging.info("%s is read from %s", part, shar_dir / part)
                return open_shar(shar_dir / part)
        name = f"{self.prefix}_cuts_{part}.jsonl.gz"
        places = manifest_places(self.params["manifest_dir"], name, self._strategy)
        for path in places:
            if path.is_file():
                return open_manifest(path)
        raise UserError(f"no {' or '.join(map(str, places))}; run the recipe's prepare.sh first")

    def manifest(self, name: str) -> "CutSet":
        """Open any other cuts; see :func:`~asr_core.data.open_cuts.open_cuts`."""
        return open_cuts(name, self.params["manifest_dir"], self._strategy)

    def named_manifests(self, text: str, option: str) -> Dict[str, "CutSet"]:
        """Open the cuts of ``NAME=MANIFEST,...``; returns them by name.

        Args:
          text: the names and manifests.
          option: the option that gave it, for messages.

        Raises:
          UserError: ``text`` has another form, or there are no such cuts.
        """
        sets = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, found, path = entry.partition("=")
            if not (name and found and path):
                raise UserError(f"{option} {entry!r}: expected NAME=MANIFEST")
            sets[name] = self.manifest(path)
        return sets

    @property
    def _strategy(self) -> str:
        if self.params.get("on_the_fly_feats"):
            return "OnTheFlyFeatures"
        return self.params.get("input_strategy", "PrecomputedFeatures")

    def _join(self, parts: Sequence[str]) -> "CutSet":
        first, *rest = [self.cuts(part) for part in parts]
        for more in rest:
            first = first + more
        return first
