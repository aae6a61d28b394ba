"""Stored features: all utterances of a shard behind one another in one file of float16 rows.

Half precision keeps log-mel energies to within 0.008; a read is one ``pread``, without decompression and without
a file per utterance. Importing this module makes the format known to lhotse under the name ``asr_core_flat``.
"""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO, Optional, Tuple

import numpy as np
from lhotse.features.io import FeaturesReader, FeaturesWriter, register_reader, register_writer

from asr_core.utils.errors import UserError

_ITEM = np.dtype("<f2")


@register_writer
class FlatFeaturesWriter(FeaturesWriter):
    """Appends matrices to one file; the key of a matrix is ``offset,rows,columns``, the offset in bytes."""

    name = "asr_core_flat"

    def __init__(self, storage_path: str, mode: str = "wb", *args: object, **kwargs: object) -> None:
        super().__init__()
        self._path = str(storage_path)
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = open(self._path, mode)  # noqa: SIM115

    @property
    def storage_path(self) -> str:
        return self._path

    def write(self, key: str, value: np.ndarray) -> str:
        """Append ``value`` (T, C); returns the key that reads it back."""
        offset = self._file.tell()
        self._file.write(np.ascontiguousarray(value, dtype=_ITEM).tobytes())
        return f"{offset},{value.shape[0]},{value.shape[1]}"

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> "FlatFeaturesWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _OpenFiles:
    """Descriptors of the files read last, few enough for any limit of the operating system."""

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit
        self._descriptors: "OrderedDict[Tuple[str, int], int]" = OrderedDict()
        self._lock = threading.Lock()

    def pread(self, path: str, size: int, offset: int) -> bytes:
        key = (path, os.stat(path).st_ino)  # a file that was written anew is another file
        with self._lock:
            if key not in self._descriptors:
                self._descriptors[key] = os.open(path, os.O_RDONLY)
            self._descriptors.move_to_end(key)
            while len(self._descriptors) > self.limit:
                os.close(self._descriptors.popitem(last=False)[1])
            return os.pread(self._descriptors[key], size, offset)


_open_files = _OpenFiles()


@register_reader
class FlatFeaturesReader(FeaturesReader):
    """Reads what :class:`FlatFeaturesWriter` wrote."""

    name = "asr_core_flat"

    def __init__(self, storage_path: str, *args: object, **kwargs: object) -> None:
        super().__init__()
        self._path = str(storage_path)

    def read(
        self, key: str, left_offset_frames: int = 0, right_offset_frames: Optional[int] = None
    ) -> np.ndarray:
        """The matrix (T, C) under ``key`` as float32, from one frame up to but without another.

        Raises:
          UserError: the file is missing or shorter than its manifest says.
        """
        offset, rows, columns = map(int, key.split(","))
        first, last, _ = slice(left_offset_frames, right_offset_frames).indices(rows)
        size = (last - first) * columns * _ITEM.itemsize
        try:
            data = _open_files.pread(self._path, size, offset + first * columns * _ITEM.itemsize)
        except OSError as e:
            raise UserError(f"cannot read features {self._path}: {e.strerror}") from e
        if len(data) != size:
            raise UserError(
                f"features file {self._path} is cut short: run prepare.sh again from stage 3 after removing it"
            )
        return np.frombuffer(data, _ITEM).reshape(last - first, columns).astype(np.float32)
