"""The type of paths in arguments."""

from pathlib import Path
from typing import Union

PathLike = Union[str, Path]
