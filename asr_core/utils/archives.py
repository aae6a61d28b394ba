"""Checksums of the zip archives that torch writes, which torch does not compare when it loads."""

import collections
import logging
import zipfile
from typing import Dict, List

from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

_FOLDER = 0x10  # an attribute of DOS
_BLOCK = 1 << 20  # bytes that are read at once
_MAGIC = b"PK\x03\x04"  # first bytes of a zip archive that is not empty


def check_archive(path: PathLike, required: bool = False) -> None:
    """Read a file of ``torch.save`` or ``torch.jit.save`` once and compare its checksums.

    A flipped bit of a weight loads without an error otherwise. Files that are no zip archives, such
    as those of torch before 1.6, have no checksums and are not read. This takes about half as long
    as loading.

    Args:
      path: the file.
      required: whether only a zip archive will do.

    Raises:
      UserError: the file is damaged, or cannot be read.
    """
    try:
        with open(path, "rb") as f:
            if f.read(len(_MAGIC)) != _MAGIC:
                if required:
                    raise UserError(_damaged(path))
                return
        with zipfile.ZipFile(path) as archive:
            wrong = _find_damage(archive)
    except UserError:
        raise
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
    except Exception as e:  # zipfile raises many kinds, depending on the damaged bytes
        raise UserError(f"{_damaged(path)} ({e or type(e).__name__})") from e
    if wrong:
        raise UserError(f"{_damaged(path)} ({wrong})")


def repeated_entries(names: List[str]) -> List[str]:
    """Return the names that occur more than once in an archive; capitals make no difference.

    Two readers may find different contents under such a name.
    """
    counts: Dict[str, int] = collections.Counter(name.lower() for name in names)
    return [name for name in names if counts[name.lower()] > 1]


def _damaged(path: PathLike) -> str:
    return f"{path} is damaged: copy or download it again, or take another file"


def _find_damage(archive: zipfile.ZipFile) -> str:
    """Return what is wrong with the first damaged entry; "" if all are whole."""
    entries = archive.infolist()
    repeated = repeated_entries([entry.filename for entry in entries])
    if repeated:
        return f"{repeated[0]} is in it twice"
    # torch.serialization.set_crc32_options(False) leaves all checksums at 0
    if not any(entry.CRC for entry in entries):
        logging.warning("%s was written without checksums: damage cannot be found", archive.filename)
        return ""
    for entry in entries:
        if not _is_whole(archive, entry):
            return f"wrong size or kind of {entry.filename}"
    return ""


def _is_whole(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Read an entry, which raises if its checksum is wrong; return whether it is a whole file."""
    if entry.is_dir() or entry.external_attr & _FOLDER:  # torch reads no content of a folder
        return False
    size = 0
    with archive.open(entry) as f:
        while block := f.read(_BLOCK):
            size += len(block)
    stored = entry.compress_type == zipfile.ZIP_STORED
    return size == entry.file_size and (not stored or size == entry.compress_size)
