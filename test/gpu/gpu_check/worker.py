"""The process of a part: it runs the items one by one and records each as it ends."""

import functools
import gc
import importlib
import json
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List

from gpu_check.parts import Part
from gpu_check.setup import WHEELS, Setup, Skipped

POISONED = 70  # exit status after an error that leaves this process without a GPU


def work(part: Part, setup: Setup, records: Path, skip: List[str]) -> int:
    """Run the items of a part that are not in ``skip``; return the exit status."""
    import torch

    from asr_core.utils.runtime import die_with_parent

    die_with_parent(signal.SIGKILL)
    if not setup.small and not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} finds no GPU here; --small 1 rehearses without one")
    items = items_of(part, setup)
    _record(records, {"plan": list(items)})
    for name, run in items.items():
        if name in skip:
            continue
        print(f"== {part.name}: {name}", flush=True)
        _record(records, {"item": name, "state": "begun"})
        began = time.perf_counter()
        row: Dict[str, Any]
        try:
            row = {"ok": True, **run()}
        except Skipped as why:
            row = {"ok": None, "note": str(why)}
        except ModuleNotFoundError as e:
            row = {"ok": None, "note": _missing(e)}
        except Exception as e:  # whatever it is, the other items go on
            traceback.print_exc()
            row = {"ok": False, "note": f"{type(e).__name__}: {_first_lines(str(e))}"}
        row["seconds"] = round(time.perf_counter() - began, 2)
        _record(records, {"item": name, "state": "done", "row": row})
        if _is_poisoned():
            print("the GPU reports an error that this process cannot recover from", flush=True)
            return POISONED
    return 0


def items_of(part: Part, setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return the items of a part; where a package is missing, one that says so."""
    try:
        module = importlib.import_module(f"gpu_check.{part.module}")
        return module.items(setup, part.argument) if part.argument else module.items(setup)
    except ModuleNotFoundError as e:
        return {"start": functools.partial(_leave_out, _missing(e))}


def _missing(error: ModuleNotFoundError) -> str:
    """Return which package is missing here; raise the error if it is not one that --wheels brings."""
    name = (error.name or "").split(".")[0]
    if name not in WHEELS:
        raise error
    return f"missing: {name}; see --wheels"


def _leave_out(why: str) -> Dict[str, Any]:
    raise Skipped(why)


def _first_lines(text: str) -> str:
    return " ".join(text.split())[:300]


def _record(records: Path, content: Dict[str, Any]) -> None:
    with open(records, "a", encoding="utf-8") as f:
        f.write(json.dumps(content, default=str) + "\n")


def _is_poisoned() -> bool:
    """Return whether the GPU is lost to this process, as after an illegal address."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as e:
        print(e, flush=True)
        return True
    return False
