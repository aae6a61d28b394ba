"""Small random transducers, whose hypotheses can all be listed."""

import math

import torch
from golden_search import SearchModel


def small_model(vocab_size=5, dim=8, context_size=2, seed=0, scale=3.0):
    torch.manual_seed(seed)
    model = SearchModel(vocab_size, dim, context_size, groups=2).eval()
    for p in model.parameters():
        p.data.normal_(0, scale / math.sqrt(dim))
    return model


def random_batch(n=6, t=15, dim=8, seed=1):
    torch.manual_seed(seed)
    lens = torch.randint(0, t + 1, (n,))
    lens[0], lens[1] = t, 0
    return torch.randn(n, t, dim) * 2, lens


def log_probs(model, frame, history):
    """Log-probabilities after ``history``, computed without any table."""
    c = model.decoder.context_size
    context = ([-1] * (c - 1) + [0] + history)[-c:]
    dec = model.joiner.decoder_proj(model.decoder(torch.tensor([context]), need_pad=False)[:, 0])
    return model.joiner(model.joiner.encoder_proj(frame[None]), dec, project_input=False)[0].log_softmax(-1)


def all_paths(model, x, vocab_size):
    """Every path with at most one token per frame through frames ``x`` (T, C): (labels with blanks, log-probability)."""
    paths = [((), 0.0)]
    for frame in x:
        grown = []
        for labels, score in paths:
            history = [label for label in labels if label != 0]
            grown += [((*labels, k), score + v) for k, v in enumerate(log_probs(model, frame, history).tolist())]
        paths = grown
    assert len(paths) == vocab_size ** len(x)
    return paths


def log_sum(values):
    """log(sum(exp(values)))."""
    values = list(values)
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(v - top) for v in values))
