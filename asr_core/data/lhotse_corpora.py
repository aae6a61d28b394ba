"""Manifests of corpora that lhotse has a recipe for."""

import inspect
import logging
import os
import sys
from pathlib import Path
from typing import Callable, Dict, Sequence, Union

import lhotse.recipes
from lhotse import RecordingSet, SupervisionSet

from asr_core.data.manifest import join_manifests, write_cuts
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path
from asr_core.utils.paths import PathLike

Manifests = Dict[str, Union[RecordingSet, SupervisionSet]]


def lhotse_recipe(corpus: str) -> Callable[..., Dict[str, Manifests]]:
    """Return lhotse's ``prepare_<corpus>``.

    Raises:
      UserError: it has none.
    """
    function = getattr(lhotse.recipes, f"prepare_{corpus}", None)
    if function is None:
        raise UserError(f"lhotse knows no corpus '{corpus}'")
    return function


def read_part(corpus: str, folder: PathLike, part: str, nj: int = 1) -> Manifests:
    """Read one part of a corpus with lhotse; return its manifests by kind.

    Args:
      corpus: lhotse's name of it.
      folder: folder of the corpus, with one subfolder per part.
      part: name of the part.
      nj: number of threads.

    Raises:
      UserError: the part's folder is missing, or something in it cannot be read.
    """
    recipe = lhotse_recipe(corpus)
    arguments = inspect.signature(recipe).parameters
    folder = Path(folder)
    if not (folder / part).is_dir():
        raise UserError(
            f"no folder {folder / part}; run stage 0, "
            f"or give the folder that holds {folder.name} with --dl-dir"
        )
    options: Dict[str, object] = {"dataset_parts" if "dataset_parts" in arguments else "parts": [part]}
    if "num_jobs" in arguments:
        options["num_jobs"] = nj
    try:
        return recipe(folder, **options)[part]
    except Exception as e:  # lhotse, soundfile and the file system each have their own kinds
        raise UserError(f"{folder / part}: cannot make manifests: {type(e).__name__}: {e}") from e


def write_parts(
    corpus: str, folder: PathLike, output_dir: PathLike, parts: Sequence[str], nj: int = 1
) -> None:
    """Write the manifests of parts of a corpus; existing ones are skipped.

    They are ``<corpus>_<kind>_<part>.jsonl.gz`` for recordings, supervisions and, where each
    recording has its text, cuts.

    Args:
      corpus, folder, nj: see :func:`read_part`.
      output_dir: folder of the manifests.
      parts: names of the parts.

    Raises:
      UserError: as :func:`read_part`, or a part has no recordings.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # for lhotse's progress bars
    for part in parts:
        _write_part(corpus, Path(folder), Path(output_dir), part, nj)


def _write_part(corpus: str, folder: Path, output_dir: Path, part: str, nj: int) -> None:
    """Write the manifests of one part, sorted by id.

    Recordings come last, so that their file means that all manifests are complete.
    """
    targets = {
        kind: output_dir / f"{corpus}_{kind}_{part}.jsonl.gz"
        for kind in ("supervisions", "cuts", "recordings")
    }
    if targets["recordings"].is_file():
        logging.info("%s exists; skipped", targets["recordings"])
    else:
        made = read_part(corpus, folder, part, nj)
        if not len(made["recordings"]):
            raise UserError(f"no recordings in {folder / part}")
        for kind, cls in (("supervisions", SupervisionSet), ("recordings", RecordingSet)):
            if kind in made:
                with atomic_path(targets[kind]) as tmp:
                    cls.from_items(sorted(made[kind], key=lambda item: item.id)).to_file(tmp)
        hours = sum(r.duration for r in made["recordings"]) / 3600
        number = len(made["recordings"])
        logging.info("%s: %d recordings, %.2f hours", targets["recordings"], number, hours)
    if not targets["cuts"].is_file() and targets["supervisions"].is_file():
        cuts = join_manifests(output_dir, corpus, part)
        if all(cut.supervisions and cut.supervisions[0].text for cut in cuts):
            write_cuts(cuts, targets["cuts"])
