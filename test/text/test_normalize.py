"""Normalization of transcripts, by names of steps."""

import pytest

from asr_core.text.normalize import normalize_text
from asr_core.utils.errors import UserError


@pytest.mark.parametrize(
    "text, mode, want",
    [
        ("Bonjour, \u00e7a va tr\u00e8s bien?", "upper+no-punct", "BONJOUR \u00c7A VA TR\u00c8S BIEN"),
        (
            "Don\u2019t say \u201cmother-in-law\u201d \u2013 3.14, 12:30!",
            "no-punct",
            "Don't say mother-in-law 3.14 12:30",
        ),
        ("'tis the dogs' -- [noise] <unk> x", "no-tags+no-punct", "tis the dogs x"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940\u0964 \u4f60\u597d\uff0c\u4e16\u754c",
            "no-punct",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u4f60\u597d \u4e16\u754c",
        ),
        ("\uff21\uff22 \ufb01n", "nfkc+lower", "ab fin"),
        ("Cr\u00e8me Br\u00fbl\u00e9e", "no-marks+lower", "creme brulee"),
        ("e\u0301  A", "none", "\u00e9 A"),
        ("\u0130 \u00df", "lower", "i\u0307 \u00df"),
    ],
)
def test_normalization_by_names(text, mode, want):
    assert normalize_text(text, mode) == want
    assert normalize_text(want, mode) == want or "+" in mode  # once is enough


def test_unknown_normalization():
    with pytest.raises(UserError, match="unknown normalization 'no-punkt'; choose from none, lower, upper"):
        normalize_text("x", "lower+no-punkt")


def test_normalize():
    assert normalize_text("  A\u0308b \t c ") == "Äb c"
    assert normalize_text("aÄ", "upper") == "AÄ" and normalize_text("AÄ", "lower") == "aä"
    with pytest.raises(UserError, match="unknown normalization"):
        normalize_text("a", "title")
