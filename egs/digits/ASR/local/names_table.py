#!/usr/bin/env python3
"""Print how many names a model finds with each setting of contextual biasing, and the WERs."""

import re
from pathlib import Path
from typing import Dict, List, Tuple

from asr_core.cli.program import run_program
from asr_core.text.scoring import Utterance, score_utterances
from asr_core.text.transcripts import read_transcripts, utterances_of
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser

Setting = Tuple[str, float]  # --context-scaling and --context-score; ("", 0) without phrases


def setting_of(name: str) -> Setting:
    """Return the setting that the name of a result file tells."""
    match = re.search(r"context-score-([\d.]+\d)(-linear)?", name)
    if match is None:
        return "", 0.0
    return "linear" if match[2] else "log", float(match[1])


def read_results(exp_dir: Path) -> Dict[Setting, Dict[str, List[Utterance]]]:
    """Read the transcripts of the sets ``names`` and ``digits``, by setting and set.

    Raises:
      UserError: there are none.
    """
    found: Dict[Setting, Dict[str, List[Utterance]]] = {}
    for path in sorted((exp_dir / "modified_beam_search").glob("recogs-*.txt")):
        match = re.match(r"recogs-(names|digits)-", path.name)
        if match:
            texts = read_transcripts(path)
            found.setdefault(setting_of(path.name), {})[match[1]] = utterances_of(texts.refs, texts.texts, {})
    if not found:
        raise UserError(f"no results of the sets names and digits in {exp_dir}; run ./run_names.sh first")
    return found


def run(exp_dir: Path, names: Path) -> None:
    """Print the table."""
    listed = set(names.read_text(encoding="utf-8").split())
    print("| `--context-scaling` | `--context-score` | names found | WER there | WER without names |")
    print("|---|---|---|---|---|")
    for (scaling, score), sets in sorted(read_results(exp_dir).items()):
        rows = sets.get("names", [])
        right = sum(bool(listed & set(row.ref) & set(row.hyp)) for row in rows)
        wers = [
            f"{score_utterances(sets[name]).total.wer:.2f}" if name in sets else ""
            for name in ("names", "digits")
        ]
        first = (f"`{scaling}`", f"{score:g}") if scaling else ("", "no phrases")
        print("| " + " | ".join((*first, f"{right} of {len(rows)}", *wers)) + " |")


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("exp_dir", type=Path, help="experiment folder")
    parser.add_argument("--names", type=Path, required=True, help="the names, one per line")
    args = parser.parse_args()
    run_program(lambda: run(args.exp_dir, args.names))
