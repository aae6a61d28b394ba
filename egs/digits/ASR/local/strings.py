"""Random strings of digits, for utterances and for the texts of language models."""

from typing import Callable, Dict, List

import numpy as np

WORDS = "zero one two three four five six seven eight nine".split()
SHORTEST, LONGEST = 3, 7


def draw_length(rng: np.random.Generator) -> int:
    """Draw the number of digits in an utterance."""
    return int(rng.integers(SHORTEST, LONGEST + 1))


def random_digits(rng: np.random.Generator, length: int) -> List[int]:
    """Draw independent digits: 3.32 bits each."""
    return rng.integers(10, size=length).tolist()


def chain(rng: np.random.Generator, length: int) -> List[int]:
    """Draw a Markov chain with about 1.9 bits per digit.

    The successor of d is 3d + 1 with 60 %, 7d + 2 with 25 % (mod 10), or else any digit. A language
    model can learn this and improve recognition; from independent digits it can learn nothing.
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
