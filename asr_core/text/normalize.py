"""Normalization that makes transcripts comparable: white space, case, punctuation.

It holds for all languages: characters are distinguished by their Unicode categories.
"""

import re
import unicodedata
from typing import Callable, Dict

from asr_core.text.tokenizer import single_spaced
from asr_core.utils.errors import UserError

_TAG = re.compile(r"<[^<>]*>|\[[^\[\]]*\]")
_APOSTROPHES = "'\u2019\u02bc\uff07"
_INNER = _APOSTROPHES + "-\u2010\u2011"  # kept between letters: don't, mother-in-law
_NUMERIC = ".,:"  # kept between digits: 3.14, 1,000, 12:30


def _no_punctuation(text: str) -> str:
    """Replace punctuation by spaces, but not within words and numbers; unify apostrophes."""
    out = []
    for i, ch in enumerate(text):
        if unicodedata.category(ch)[0] not in "PS":
            out.append(ch)
            continue
        before, after = text[i - 1 : i], text[i + 1 : i + 2]
        in_word = ch in _INNER and _is_letter(before) and _is_letter(after)
        in_number = ch in _NUMERIC and before.isdigit() and after.isdigit()
        out.append(("'" if ch in _APOSTROPHES else ch) if in_word or in_number else " ")
    return "".join(out)


def _is_letter(ch: str) -> bool:
    return bool(ch) and unicodedata.category(ch)[0] in "LMN"  # marks belong to letters, e.g. in Devanagari


def _no_marks(text: str) -> str:
    """Remove accents: decompose letters and drop non-spacing marks."""
    return "".join(ch for ch in unicodedata.normalize("NFD", text) if unicodedata.category(ch) != "Mn")


NORMALIZERS: Dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "lower": str.lower,
    "upper": str.upper,
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "no-tags": lambda text: _TAG.sub(" ", text),
    "no-punct": _no_punctuation,
    "no-marks": _no_marks,
}


def check_normalization(mode: str) -> None:
    """Refuse a mode that :func:`normalize_text` does not know.

    Raises:
      UserError: naming it and the known ones.
    """
    for name in mode.split("+"):
        if name not in NORMALIZERS:
            known = ", ".join(NORMALIZERS)
            raise UserError(
                f"unknown normalization {name!r}; choose from {known}, "
                "several joined by +, e.g. no-tags+no-punct+lower"
            )


def normalize_text(text: str, mode: str = "none") -> str:
    """Return ``text`` in Unicode form C with single spaces, normalized according to ``mode``.

    Args:
      text: a transcript.
      mode: names of :data:`NORMALIZERS` joined by ``+``, applied from left to right: ``none``,
        ``lower``, ``upper``, ``nfkc`` (unify full-width and other compatible forms), ``no-tags``
        (remove ``<...>`` and ``[...]``), ``no-punct`` (remove punctuation and symbols, except
        apostrophes and hyphens within words, and marks within numbers), ``no-marks`` (remove
        accents).

    Raises:
      UserError: an unknown mode.
    """
    check_normalization(mode)
    text = unicodedata.normalize("NFC", text)
    for name in mode.split("+"):
        text = NORMALIZERS[name](text)
    return single_spaced(unicodedata.normalize("NFC", text))
