"""Whole manifests in memory, for tests."""

from lhotse import CutSet

from asr_core.data.manifest import iterate_cuts


def read_cuts(path) -> CutSet:
    """Read the cuts of a manifest."""
    return CutSet.from_cuts(iterate_cuts(path))
