"""What the processes of a run must find alike in the files of their data, before they train."""

from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Mapping

from asr_core.data.augment import noise_manifest
from asr_core.data.mux import other_corpora
from asr_core.data.options import DataOptions
from asr_core.data.stream import files_of
from asr_core.training.distributed.agreement import content_fact

if TYPE_CHECKING:
    from lhotse import CutSet


def facts_of_data(sets: Mapping[str, "CutSet"], opts: DataOptions) -> Dict[str, str]:
    """Return digests of the manifests that a run reads, by what they are.

    Of Shar, the manifests of all shards count, and the sizes of the other files.

    Args:
      sets: training and validation cuts, by what they are called in a message.
      opts: which noise is mixed in, and which other corpora.

    Raises:
      UserError: a manifest is missing.
    """
    files: Dict[str, List[Path]] = {name: files_of(cuts) for name, cuts in sets.items()}
    if opts.use_mux:
        for name, cuts in other_corpora(opts).items():
            files[f"{name} of --mux-cuts"] = files_of(cuts)
    noise = noise_manifest(opts)
    files["the noise"] = [noise] if noise else []
    facts = {}
    for name, paths in files.items():
        facts[f"the number of files of {name}"] = str(len(paths))
        for i, path in enumerate(paths, 1):
            facts[f"file {i} of {name}"] = f"{path.name} {_fact(path)}"
    return facts


def _fact(path: Path) -> str:
    if path.suffix == ".tar" and path.is_file():
        return f"{path.stat().st_size} bytes"
    return content_fact(path)
