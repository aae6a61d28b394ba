"""CTC on made-up log-probabilities: a model that passes them through, and prefix beam search with
dictionaries.
"""

import itertools
import math
from collections import defaultdict
from types import SimpleNamespace

import torch

MODEL = SimpleNamespace(ctc_output=lambda x: x)  # frames are log-probabilities already


def frames(*shape, seed=0, peak=1.5):
    return (peak * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def collapse(path):
    return tuple(token for token, _ in itertools.groupby(path) if token != 0)


def add(a, b):
    return float(torch.logaddexp(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)))


def dictionary_search(log_probs, beam):
    """Prefix beam search: {prefix: [ends in blank, ends in its last token]}."""
    live = {(): [0.0, -math.inf]}
    for frame in log_probs.tolist():
        new = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (blank, token) in live.items():
            both = add(blank, token)
            new[prefix][0] = add(new[prefix][0], both + frame[0])
            if prefix:
                new[prefix][1] = add(new[prefix][1], token + frame[prefix[-1]])
            for v in range(1, len(frame)):
                before = blank if prefix and v == prefix[-1] else both
                new[(*prefix, v)][1] = add(new[(*prefix, v)][1], before + frame[v])
        live = dict(sorted(new.items(), key=lambda item: -add(*item[1]))[:beam])
    return sorted(((p, add(*s)) for p, s in live.items()), key=lambda item: -item[1])
