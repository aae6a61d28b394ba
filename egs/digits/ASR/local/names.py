"""Invented names, which no model has heard, for measuring contextual biasing."""

import functools
import zlib
from typing import List, Tuple

import numpy as np

_ONSETS = "b d f g k l m n p r s t v z br dr fl gr kl pr st tr".split()
_VOWELS = "a e i o u".split()
_CODAS = ["", "", "l", "m", "n", "r", "s", "t"]
NUM_TEST = 100  # names in the test part; with 300 utterances each occurs three times or so


def _invent(rng: np.random.Generator) -> str:
    """Spell two or three syllables."""
    syllables = [
        str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) + str(rng.choice(_CODAS))
        for _ in range(rng.integers(2, 4))
    ]
    return "".join(syllables)


def _is_for_test(name: str) -> bool:
    return zlib.crc32(name.encode()) % 5 == 0


def _draw(rng: np.random.Generator, for_test: bool) -> str:
    while True:
        name = _invent(rng)
        if _is_for_test(name) == for_test:
            return name


@functools.lru_cache(maxsize=None)
def test_names() -> Tuple[str, ...]:
    """Return the names of the test part, which training never hears."""
    rng = np.random.default_rng(NUM_TEST)
    return tuple(_draw(rng, for_test=True) for _ in range(NUM_TEST))


def with_names(text: str, part: str, rng: np.random.Generator) -> str:
    """Put names among digits: one into a test utterance, none to two into others.

    Args:
      text: digits in words, of which at most four are kept.
      part: the utterance's part.
      rng: source of the random choices.
    """
    words = text.split()[:4]
    if part == "test":
        drawn: List[str] = [test_names()[rng.integers(NUM_TEST)]]
    else:
        drawn = [_draw(rng, for_test=False) for _ in range(rng.integers(0, 3))]
    for name in drawn:
        words.insert(int(rng.integers(len(words) + 1)), name)
    return " ".join(words)
