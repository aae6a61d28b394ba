"""Forced alignment against enumeration of all alignments."""

import itertools
import math

import pytest
import torch
from forced_align import ctc_forced_align


def collapse(path):
    return [token for token, _ in itertools.groupby(path) if token != 0]


def brute_force(log_probs, tokens):
    best, frames = -math.inf, []
    for path in itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        score = sum(float(log_probs[t, v]) for t, v in enumerate(path))
        if collapse(path) == tokens and score > best:
            best = score
            frames = [t for t, v in enumerate(path) if v != 0 and (t == 0 or path[t - 1] != v)]
    return frames, best


@pytest.mark.parametrize("seed", range(5))
def test_equals_enumeration(seed):
    log_probs = torch.randn(6, 6, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    tokens = [[1, 2], [1, 1, 1], [], [2], [2, 1, 2, 1], [1, 2]]
    lens = torch.tensor([6, 6, 6, 1, 5, 3])
    frames, score = ctc_forced_align(log_probs, lens, tokens)
    for i, sequence in enumerate(tokens):
        expected = brute_force(log_probs[i, : lens[i]], sequence)
        assert frames[i] == expected[0]
        assert float(score[i]) == pytest.approx(expected[1], abs=1e-5)


def test_too_few_frames_and_none():
    log_probs = torch.randn(3, 4, 3).log_softmax(-1)
    _, score = ctc_forced_align(log_probs, torch.tensor([2, 4, 0]), [[1, 1], [2, 2], []])
    assert score[0] == -math.inf and score[1].isfinite() and score[2] == 0
    assert ctc_forced_align(torch.zeros(0, 4, 3), torch.zeros(0), [])[0] == []
