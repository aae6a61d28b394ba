"""Make manifests of a corpus that lhotse knows: recordings, supervisions and, where each recording has its text, cuts."""

import inspect
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class ManifestOptions:
    """Manifests: of what, from where, to where."""

    corpus: str = option("", "lhotse's name of the corpus, e.g. librispeech, musan")
    corpus_dir: str = option("", "folder of the corpus")
    output_dir: str = option(
        "data/manifests", "folder for <corpus>_{recordings,supervisions,cuts}_<part>.jsonl.gz"
    )
    parts: str = option("", "parts, separated by commas; those that are in --output-dir are skipped")
    nj: int = option(2, "number of threads that read the headers of recordings")


def lhotse_recipe(corpus: str) -> Callable:
    """lhotse's ``prepare_<corpus>``.

    Raises:
      UserError: it has none.
    """
    import lhotse.recipes

    function = getattr(lhotse.recipes, f"prepare_{corpus}", None)
    if function is None:
        raise UserError(f"lhotse knows no corpus '{corpus}'")
    return function


def read_part(opts: ManifestOptions, part: str) -> Dict[str, Any]:
    """What lhotse makes of one part: a dict of its manifests.

    Raises:
      UserError: the part's folder is missing, or something in it cannot be read.
    """
    recipe = lhotse_recipe(opts.corpus)
    arguments = inspect.signature(recipe).parameters
    folder = Path(opts.corpus_dir)
    if not (folder / part).is_dir():
        raise UserError(
            f"no folder {folder / part}; run stage 0, or give the folder that holds {folder.name} with --dl-dir"
        )
    kwargs: Dict[str, Any] = {"dataset_parts" if "dataset_parts" in arguments else "parts": [part]}
    if "num_jobs" in arguments:
        kwargs["num_jobs"] = opts.nj
    try:
        return recipe(folder, **kwargs)[part]
    except Exception as e:  # lhotse, soundfile and the file system each have their own kinds
        raise UserError(f"{folder / part}: cannot make manifests: {type(e).__name__}: {e}") from e


def write_part(opts: ManifestOptions, part: str) -> None:
    """Write the manifests of one part, sorted by id; recordings come last, so that their file says that all are there."""
    from lhotse import RecordingSet, SupervisionSet

    from asr_core.data.manifest import join_manifests, write_cuts
    from asr_core.utils.files import atomic_path

    kinds = {
        kind: Path(opts.output_dir) / f"{opts.corpus}_{kind}_{part}.jsonl.gz"
        for kind in ("supervisions", "cuts", "recordings")
    }
    if not kinds["recordings"].is_file():
        made = read_part(opts, part)
        if not len(made["recordings"]):
            raise UserError(f"no recordings in {Path(opts.corpus_dir) / part}")
        for kind, cls in (("supervisions", SupervisionSet), ("recordings", RecordingSet)):
            if kind in made:
                with atomic_path(kinds[kind]) as tmp:
                    cls.from_items(sorted(made[kind], key=lambda item: item.id)).to_file(tmp)
        hours = sum(r.duration for r in made["recordings"]) / 3600
        logging.info("%s: %d recordings, %.2f hours", kinds["recordings"], len(made["recordings"]), hours)
    else:
        logging.info("%s exists; skipped", kinds["recordings"])
    if not kinds["cuts"].is_file() and kinds["supervisions"].is_file():
        cuts = join_manifests(opts.output_dir, opts.corpus, part)
        if all(cut.supervisions and cut.supervisions[0].text for cut in cuts):
            write_cuts(cuts, kinds["cuts"])


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, ManifestOptions)
    opts = from_params(ManifestOptions, parser.parse_args(argv))
    if not (opts.corpus and opts.corpus_dir and opts.parts):
        parser.error("--corpus, --corpus-dir and --parts are needed")
    setup_logger()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # for lhotse's progress bars
    run_program(lambda: [write_part(opts, part) for part in opts.parts.split(",")] and None)


if __name__ == "__main__":
    main()
