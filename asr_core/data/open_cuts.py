"""Finding and opening manifests and Shar folders.

Recipes import this for their ``--help``, so lhotse is imported only when something is opened.
"""

from pathlib import Path
from typing import TYPE_CHECKING, List

from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    from lhotse import CutSet


def manifest_places(manifest_dir: PathLike, name: str, strategy: str) -> List[Path]:
    """Return the possible paths of a manifest.

    That is ``manifest_dir`` and, if features are computed while loading, ``manifests`` beside it,
    where the manifests without features are.
    """
    folder = Path(manifest_dir)
    beside = [] if strategy == "PrecomputedFeatures" else [folder.parent / "manifests" / name]
    return [folder / name, *beside]


def open_manifest(path: Path) -> "CutSet":
    """Open a cut manifest; its cuts are read when they are iterated over."""
    from lhotse import CutSet

    return CutSet.from_jsonl_lazy(path)


def open_cuts(name: PathLike, manifest_dir: PathLike, strategy: str) -> "CutSet":
    """Open a manifest or a Shar folder, in ``manifest_dir`` or elsewhere, lazily.

    Raises:
      UserError: there is no such manifest or folder.
    """
    places = [*manifest_places(manifest_dir, str(name), strategy), Path(name)]
    for path in places:
        if path.is_dir():
            return open_shar(path)
        if path.is_file():
            return open_manifest(path)
    raise UserError(f"no such cuts: {' or '.join(map(str, places))}; prepare them, or give others")


def shar_record(folder: Path) -> Path:
    """Return the file whose existence marks one of our Shar folders as complete.

    It is next to the folder, because lhotse does not accept foreign files in it.
    """
    return folder.parent / f".{folder.name}.shar.done"


def shar_started(folder: Path) -> Path:
    """Return the file that marks a Shar folder as being written."""
    return shar_record(folder).with_suffix(".started")


def open_shar(folder: Path) -> "CutSet":
    """Open a Shar folder lazily; errors as :func:`shar_manifests`."""
    from lhotse import CutSet

    shar_manifests(folder)
    return CutSet.from_shar(in_dir=folder)


def shar_manifests(folder: Path) -> List[Path]:
    """Return the manifests of a Shar folder's shards, in order.

    Raises:
      UserError: it has no cuts, or is not complete.
    """
    if shar_started(folder).is_file():
        raise UserError(f"{folder} is not complete: start the command that writes it again")
    found = sorted(folder.glob("cuts.*.jsonl*"))
    if not found:
        raise UserError(f"no cuts in the Shar folder {folder}")
    return found
