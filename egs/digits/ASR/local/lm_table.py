#!/usr/bin/env python3
"""Print the test WERs of decoding methods, with the best settings on the validation set."""

import re
from pathlib import Path
from typing import Dict, List, Tuple

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser

Rates = Dict[str, float]  # setting -> WER in percent


def read_rates(exp_dir: Path) -> Dict[str, Dict[str, Rates]]:
    """Read the ``wer-summary-*.txt`` below ``exp_dir``: WERs by method (folder), set and setting.

    Raises:
      UserError: there are no such files.
    """
    found: Dict[str, Dict[str, Rates]] = {}
    for path in sorted(exp_dir.glob("*/wer-summary-*.txt")):
        match = re.fullmatch(r"wer-summary-(valid|test)-(.*)\.txt", path.name)
        if not match:
            continue
        name, file = match.groups()
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            key, wer = line.split("\t")
            found.setdefault(path.parent.name, {}).setdefault(name, {})[f"{file} {key}"] = float(wer)
    if not found:
        raise UserError(f"no WERs of the sets valid and test below {exp_dir}; run ./run_lm.sh first")
    return found


def best_row(rates: Dict[str, Rates]) -> Tuple[float, float, str]:
    """Return test WER, validation WER and name of the setting with the lowest validation WER."""
    valid, test = rates.get("valid", {}), rates.get("test", {})
    both = [setting for setting in valid if setting in test]
    if not both:
        raise UserError(
            "a method was decoded with different settings on validation and test set; decode again"
        )
    setting = min(both, key=lambda s: valid[s])
    return test[setting], valid[setting], setting


def weights_of(setting: str) -> str:
    """Return the weights in a setting as options: ``_lm-scale-0.3`` or ``nnlm_scale_0.30``."""
    dashed = re.findall(r"((?:[A-Za-z0-9]+-)*scale)-(-?[\d.]*\d)", setting)
    underscored = re.findall(r"((?:nnlm|lodr|lm|ngram_lm|attention)_scale)_(-?[\d.]*\d)", setting)
    weights = [
        (name.replace("_", "-"), float(value))
        for name, value in dashed + underscored
        if name != "nbest-scale"
    ]
    return ", ".join(dict.fromkeys(f"{name} {value:g}" for name, value in weights))


def run(exp_dir: Path) -> None:
    """Print the table, best first."""
    rows: List[Tuple[float, float, str, str]] = []
    for method, rates in read_rates(exp_dir).items():
        test, valid, setting = best_row(rates)
        rows.append((test, valid, method, weights_of(setting)))
    print("| method | weights | valid WER % | test WER % |\n|---|---|---|---|")
    for test, valid, method, weights in sorted(rows):
        print(f"| {method} | {weights} | {valid:.2f} | {test:.2f} |")


if __name__ == "__main__":
    parser = Parser(__doc__)
    parser.add_argument("exp_dir", type=Path, help="experiment folder")
    args = parser.parse_args()
    run_program(lambda: run(args.exp_dir))
