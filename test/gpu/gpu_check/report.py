"""The results as JSON, Markdown and one log file."""

import json
import math
import os
from pathlib import Path
from typing import Any, Dict, List

from gpu_check import targets
from gpu_check.parts import PARTS
from gpu_check.setup import Setup

_LOG_BYTES = 1 << 20  # kept of each part's output


def write(results: Dict[str, Any], setup: Setup, logs: bool) -> None:
    """Write check.json, check.md and, if wanted, log.txt; nobody reads half a file."""
    results = {**results, "targets": targets.verdicts(results["parts"])}
    _replace(setup.out / "check.json", json.dumps(results, indent=1, default=str) + "\n")
    _replace(setup.out / "check.md", markdown(results))
    if logs:
        _write_logs(results, setup)


def _write_logs(results: Dict[str, Any], setup: Setup) -> None:
    logs = []
    for name in results["parts"]:
        path = setup.work / f"{name}.log"
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")[-_LOG_BYTES:]
            logs.append(f"######## {name}\n{text}\n")
    _replace(setup.out / "log.txt", "".join(logs))


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _counts(part: Dict[str, Any]) -> List[int]:
    """Return how many rows are green, red, left out and not reached."""
    rows = part["rows"]
    late = sum("late" in row for row in rows)
    oks = [row["ok"] for row in rows]
    return [oks.count(True), oks.count(False), oks.count(None) - late, late]


def line(name: str, part: Dict[str, Any]) -> str:
    """Return one line about a part, and one about each red item."""
    counts = "{} green, {} red, {} left out, {} not reached".format(*_counts(part))
    red = [
        f"    RED {row['item']}: {row.get('note', '')[:300]}" for row in part["rows"] if row["ok"] is False
    ]
    return "\n".join([f"{name:22} {part['seconds']:6.1f} s  {counts}", *red])


def summary(results: Dict[str, Any]) -> str:
    """Return the lines of all parts, and the figures that matter most."""
    lines = [line(name, part) for name, part in _in_order(results["parts"])]
    if not results["small"]:
        lines += ["", *_verdicts(results["parts"])]
    return "\n".join(lines)


def _in_order(parts: Dict[str, Any]) -> List[Any]:
    """Return names and results of the parts in the order in which the check has them."""
    order = [part.name for part in PARTS]
    return sorted(parts.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))


def _verdicts(parts: Dict[str, Any]) -> List[str]:
    lines = ["| figure | measured | wanted | held |", "|---|---|---|---|"]
    return lines + [f"| {' | '.join(row.values())} |" for row in targets.verdicts(parts)]


def markdown(results: Dict[str, Any]) -> str:
    """Return all tables."""
    lines = ["# GPU check", ""]
    if results["note"]:
        lines += [f"**{results['note']}**", ""]
    if results["small"]:
        lines += ["A rehearsal on the CPU, kernels interpreted: its times say nothing.", ""]
    else:
        lines += [*_verdicts(results["parts"]), ""]
    parts = _in_order(results["parts"])
    lines += ["| part | | green | red | left out | not reached | s |", "|---|---|---|---|---|---|---|"]
    for name, part in parts:
        counts = " | ".join(map(str, _counts(part)))
        lines.append(f"| {name} | {part['about']} | {counts} | {part['seconds']} |")
    lines += ["", f"{results['seconds']} s in all.", ""]
    for name, part in parts:
        lines += [f"## {name}", "", *_table(part["rows"]), ""]
    return "\n".join(lines)


def _table(rows: List[Dict[str, Any]]) -> List[str]:
    columns = ["item", "ok"]
    for row in rows:
        columns += [key for key in row if key not in columns and key not in ("seconds", "note", "late")]
    columns = [*dict.fromkeys(columns), "seconds", "note"]
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return head + [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        if not math.isfinite(value) or value == 0:
            return str(value)
        return f"{value:.2e}" if abs(value) < 1e-3 or abs(value) >= 1e6 else f"{value:.4g}"
    if isinstance(value, (list, dict)):
        value = json.dumps(value, default=str)
    return str(value).replace("|", "\\|").replace("\n", " ")
