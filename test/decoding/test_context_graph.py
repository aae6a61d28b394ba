import itertools
import math

import pytest
import torch

from asr_core.decoding.scorers.context_graph import ContextGraph


def run(graph, tokens):
    """The bonus after each token and at the end, summed up as it goes."""
    state, total, steps = torch.zeros((), dtype=torch.int64), 0.0, []
    for token in tokens:
        bonus, state = graph.advance(state, torch.tensor(token))
        total += float(bonus)
        steps.append(total)
    return steps, total + float(graph.finish(state))


def linear(length):
    return length


def logarithmic(length):
    return math.log(1 + length)


def by_hand(phrases, tokens, score, earned=linear):
    """Compute the scores from the definition: completed phrases keep their bonus and nothing before them
    counts any more.
    """
    phrases = [tuple(p) for p in phrases if p]
    starts = {(), *(p[:i] for p in phrases for i in range(len(p)))}
    kept, open_tokens, steps = 0, (), []
    for token in tokens:
        open_tokens += (token,)
        while open_tokens not in starts and open_tokens not in phrases:
            open_tokens = open_tokens[1:]
        done = [open_tokens[i:] for i in range(len(open_tokens)) if open_tokens[i:] in phrases]
        if done:
            kept, open_tokens = kept + earned(len(done[0])), ()
        steps.append((kept + earned(len(open_tokens))) * score)
    return steps, kept * score


def test_bonus_of_a_phrase_and_what_is_given_back():
    graph = ContextGraph([[5, 6, 7]], 2.0)
    assert run(graph, [5, 6, 7, 8]) == ([2.0, 4.0, 6.0, 6.0], 6.0)
    assert run(graph, [5, 6, 8]) == ([2.0, 4.0, 0.0], 0.0)
    assert run(graph, [5, 5, 6]) == ([2.0, 2.0, 4.0], 0.0)
    assert run(graph, [8, 9, 1000]) == ([0.0, 0.0, 0.0], 0.0)


def test_overlapping_phrases():
    graph = ContextGraph([[1, 2, 3, 4], [2, 3], [3, 9]], 1.0)
    assert run(graph, [1, 2, 3, 4])[1] == 2.0  # (2, 3) is completed first, what began before it is over
    assert run(graph, [2, 3, 9])[1] == 2.0
    assert run(graph, [3, 9, 2, 3])[1] == 4.0


@pytest.mark.parametrize("scaling, earned", [("linear", linear), ("log", logarithmic)])
@pytest.mark.parametrize(
    "phrases",
    [
        [[1, 2]],
        [[1], [2, 2]],
        [[1, 2, 1], [2, 1, 1, 2]],
        [[1, 2, 2], [2, 2, 1], [2]],
        [[], [3, 1], [1, 3, 1, 3, 2]],
        [],
    ],
)
def test_every_sequence_by_hand(phrases, scaling, earned):
    graph = ContextGraph(phrases, 1.5, scaling=scaling)
    for tokens in itertools.product((1, 2, 3, 4), repeat=5):
        (steps, total), (want, end) = run(graph, tokens), by_hand(phrases, tokens, 1.5, earned)
        assert [*steps, total] == pytest.approx([*want, end])


def test_long_phrases_earn_little_more_than_short_ones():
    tokens = list(range(1, 13))
    short, long = ContextGraph([tokens[:4]], 2.0, scaling="log"), ContextGraph([tokens], 2.0, scaling="log")
    assert run(short, tokens[:4])[1] == pytest.approx(2 * math.log(5))
    assert run(long, tokens)[1] == pytest.approx(2 * math.log(13))


def test_batches():
    graph = ContextGraph([[1, 2, 1], [2, 1, 1, 2]], 2.0)
    torch.manual_seed(0)
    tokens = torch.randint(1, 4, (30, 40))
    state = torch.zeros(40, dtype=torch.int64)
    total = torch.zeros(40)
    for row in tokens:
        bonus, state = graph.advance(state, row)
        total += bonus
    total += graph.finish(state)
    assert total.tolist() == pytest.approx(
        [by_hand([[1, 2, 1], [2, 1, 1, 2]], t.tolist(), 2.0)[1] for t in tokens.T]
    )
    assert (total > 0).any()
