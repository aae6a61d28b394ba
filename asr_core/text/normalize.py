"""Transcripts made comparable: white space, case."""

import unicodedata

from asr_core.utils.errors import UserError

MODES = ("none", "lower", "upper")


def normalize_text(text: str, mode: str = "none") -> str:
    """``text`` in Unicode form C with single spaces, in lower or upper case if ``mode`` says so.

    Args:
      text: a transcript.
      mode: ``"none"`` (case kept), ``"lower"`` or ``"upper"``.

    Raises:
      UserError: an unknown mode.
    """
    if mode not in MODES:
        raise UserError(f"unknown normalization {mode!r}; choose one of {', '.join(MODES)}")
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return {"none": text, "lower": text.lower(), "upper": text.upper()}[mode]
