"""Stored features: the utterances of a shard one after the other, in one file of float16 rows.

Half precision keeps log-mel energies to within 0.008; a read is one ``pread``, without
decompression and without a file per utterance. Importing this module makes the format known to
lhotse under the name ``asr_core_flat``.
"""

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import IO, Optional, Tuple

import numpy as np
from lhotse.features.io import FeaturesReader, FeaturesWriter, register_reader, register_writer

from asr_core.utils.errors import UserError

_ITEM = np.dtype("<f2")


@register_writer
class FlatFeaturesWriter(FeaturesWriter):
    """Writer that appends matrices to one file; their keys are ``byte offset,rows,columns``."""

    name = "asr_core_flat"

    def __init__(self, storage_path: str, mode: str = "wb", *args: object, **kwargs: object) -> None:
        super().__init__()
        self._path = str(storage_path)
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(self._path, mode)

    @property
    def storage_path(self) -> str:
        """Path of the file."""
        return self._path

    def write(self, key: str, value: np.ndarray) -> str:
        """Append ``value`` (T, C); return the key that reads it back."""
        offset = self._file.tell()
        self._file.write(np.ascontiguousarray(value, dtype=_ITEM).tobytes())
        return f"{offset},{value.shape[0]},{value.shape[1]}"

    def close(self) -> None:
        """Write everything to the disk and close the file."""
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
        """Read up to ``size`` bytes of a file, starting at ``offset``."""
        # A file that was written anew has another inode, so it is opened again.
        key = (path, os.stat(path).st_ino)
        with self._lock:
            if key not in self._descriptors:
                self._descriptors[key] = os.open(path, os.O_RDONLY)
            self._descriptors.move_to_end(key)
            while len(self._descriptors) > self.limit:
                os.close(self._descriptors.popitem(last=False)[1])
            try:
                return os.pread(self._descriptors[key], size, offset)
            except OSError:  # after a share was away, its files must be opened again
                os.close(self._descriptors.pop(key))
                raise


_open_files = _OpenFiles()


@register_reader
class FlatFeaturesReader(FeaturesReader):
    """Reader of the files of :class:`FlatFeaturesWriter`."""

    name = "asr_core_flat"

    def __init__(self, storage_path: str, *args: object, **kwargs: object) -> None:
        super().__init__()
        self._path = str(storage_path)

    def read(
        self, key: str, left_offset_frames: int = 0, right_offset_frames: Optional[int] = None
    ) -> np.ndarray:
        """Read the matrix (T, C) under ``key`` as float32, or some of its frames.

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
                f"features file {self._path} is cut short: remove it and run prepare.sh again from stage 3"
            )
        return np.frombuffer(data, _ITEM).reshape(last - first, columns).astype(np.float32)
