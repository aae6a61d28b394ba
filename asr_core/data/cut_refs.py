"""References to cuts, which samplers pass on; a cut is built where its batch is loaded."""

import io
import tarfile
from array import array
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Iterator, NamedTuple, Optional, Tuple, Union

from lhotse.serialization import decode_json_line, deserialize_item
from lhotse.shar.utils import fill_shar_placeholder

from asr_core.data.sources import check_sources
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from lhotse import Features, Recording
    from lhotse.cut import Cut


class LineRef(NamedTuple):
    """A cut as a line of JSON, to be played at a speed."""

    line: bytes
    speed: float = 1.0

    def cut(self) -> "Cut":
        """Build the cut."""
        return at_speed(parse_cut(self.line), self.speed)


class SharRef(NamedTuple):
    """A cut of Lhotse Shar, to be played at a speed.

    Attributes:
      line: the cut as a line of JSON.
      fields: name of each field of data and path of its tar file.
      position: which entry of those tar files belongs to the cut, from 0.
      speed: playing speed.
    """

    line: bytes
    fields: Tuple[Tuple[str, str], ...]
    position: int
    speed: float = 1.0

    def cut(self) -> "Cut":
        """Build the cut with its data in memory.

        Raises:
          UserError: a tar file is missing, damaged, or of another manifest.
        """
        cut = parse_cut(self.line)
        for field, path in self.fields:
            manifest = _read_entry(path, self.position, cut.id)
            if manifest is not None:
                setattr(cut, field, manifest)
        return at_speed(cut, self.speed)


CutRef = Union[LineRef, SharRef, "Cut"]


def load_cut(ref: CutRef) -> "Cut":
    """Return the cut that ``ref`` refers to; a cut is returned as it is."""
    return ref.cut() if isinstance(ref, (LineRef, SharRef)) else ref


def files_of_ref(ref: CutRef) -> Iterator[str]:
    """Yield the files that are read where a cut is built."""
    return (path for _, path in ref.fields) if isinstance(ref, SharRef) else iter(())


def name_of(ref: CutRef) -> str:
    """Return the id of a cut, or the beginning of its line where that has none."""
    if not isinstance(ref, (LineRef, SharRef)):
        return ref.id
    try:
        name = str(decode_json_line(ref.line)["id"])
    except (ValueError, KeyError, TypeError):
        return f"cut {ref.line[:60]!r}"
    return name if ref.speed == 1.0 else f"{name}_sp{ref.speed:g}"


def parse_cut(line: bytes) -> "Cut":
    """Build a cut from its line of JSON."""
    return deserialize_item(decode_json_line(line))


def at_speed(cut: "Cut", speed: float) -> "Cut":
    """Return ``cut`` played at ``speed``, without stored features, which hold for speed 1."""
    if speed == 1.0:
        return cut
    # lhotse drops stored features itself, but warns about each cut.
    return (cut.drop_features() if cut.has_features else cut).perturb_speed(speed)


@lru_cache(maxsize=None)
def _entries(path: str) -> "array[int]":
    """Return offset and size of each member of a tar file; two members make an entry."""
    places = array("q")
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                places.extend((member.offset, member.offset_data + member.size - member.offset))
    except (OSError, tarfile.TarError) as e:
        raise UserError(f"cannot read {path}: {e}; write it again with asr_core.bin.write_shar") from e
    return places


def _read_entry(path: str, position: int, cut_id: str) -> Optional[Union["Features", "Recording"]]:
    """Read one entry as lhotse's manifest with its data inside; None if it has no data."""
    if not path.endswith(".tar"):
        raise UserError(f"{path}: only tar files can be read at any place; keep no other data in the folder")
    places = _entries(path)[4 * position : 4 * position + 4]
    with open(path, "rb") as f:
        members = [_member(f, offset=places[i], size=places[i + 1]) for i in range(0, len(places) - 1, 2)]
    names = [name for name, _ in members]
    if len(members) != 2 or Path(names[0]).stem != Path(names[1]).stem or _key(names[0]) != cut_id:
        raise UserError(
            f"{path}: entry {position} is not that of cut {cut_id}; "
            "write it again with asr_core.bin.write_shar"
        )
    (name, data), (description, text) = members
    if description.endswith(".nometa"):
        return None
    data_of = decode_json_line(text.decode("utf-8"))
    check_sources(data_of)  # there are no commands in Shar
    manifest = deserialize_item(data_of)
    fill_shar_placeholder(manifest, data=data, tarpath=name)
    return manifest


def _member(f: BinaryIO, *, offset: int, size: int) -> Tuple[str, bytes]:
    """Read the name and content of the tar member at ``offset``."""
    f.seek(offset)
    with tarfile.open(fileobj=io.BytesIO(f.read(size)), mode="r:") as tar:
        member = tar.next()
        content = tar.extractfile(member) if member is not None else None
        if member is None or content is None:
            raise UserError(
                f"{f.name}: no file at byte {offset}; write it again with asr_core.bin.write_shar"
            )
        return member.name, content.read()


def _key(name: str) -> str:
    return name.rsplit(".", 1)[0]
