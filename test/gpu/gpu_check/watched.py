"""Runs a program of a recipe and counts its host synchronisations: ``watched.py PROGRAM ARGUMENTS``,
the record in CHECK_SYNCS.
"""

import os
import runpy
import sys
from pathlib import Path

import torch

from gpu_check.syncs import Watch

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    with Watch() as watch:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        finally:
            watch.write(Path(os.environ["CHECK_SYNCS"]))
