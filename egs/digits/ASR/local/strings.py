"""Strings of digits: what utterances say, and what texts for language models hold."""

from typing import Callable, Dict, List

import numpy as np

WORDS = "zero one two three four five six seven eight nine".split()
SHORTEST, LONGEST = 3, 7


def draw_length(rng: np.random.Generator) -> int:
    """Digits of an utterance."""
    return int(rng.integers(SHORTEST, LONGEST + 1))


def random_digits(rng: np.random.Generator, length: int) -> List[int]:
    """Each digit whatever the others are: 3.32 bits."""
    return rng.integers(10, size=length).tolist()


def chain(rng: np.random.Generator, length: int) -> List[int]:
    """A Markov chain of about 1.9 bits a digit: after d, 3d + 1 in 60 % and 7d + 2 in 25 % (mod 10), or any.

    A language model can learn it, so it can make recognition better; of random digits there is nothing to learn.
    """
    digits = [int(rng.integers(10))]
    while len(digits) < length:
        d = digits[-1]
        draw = rng.random()
        digits.append(
            (3 * d + 1) % 10 if draw < 0.6 else (7 * d + 2) % 10 if draw < 0.85 else int(rng.integers(10))
        )
    return digits


STRINGS: Dict[str, Callable[[np.random.Generator, int], List[int]]] = {
    "random": random_digits,
    "chain": chain,
}
