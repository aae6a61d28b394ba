"""Small random transducers, whose hypotheses can all be listed."""

import math

import torch
from answers import one_best
from golden_search import SearchModel

from asr_core.predictors import LstmPredictor


def small_model(vocab_size=5, dim=8, context_size=2, seed=0, scale=3.0):
    """With a ``context_size`` of None its predictor is an LSTM of two layers, projected and
    normalised, with clipped cells.
    """
    torch.manual_seed(seed)
    model = SearchModel(vocab_size, dim, context_size or 1, groups=2).eval()
    if context_size is None:
        model.decoder = LstmPredictor(
            vocab_size, dim, 0, 6, num_layers=2, hidden_dim=10, layer_norm=True, cell_clip=0.8
        ).eval()
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
    if hasattr(model.decoder, "context_size"):
        c = model.decoder.context_size
        context = ([-1] * (c - 1) + [0] + history)[-c:]
        decoder_out = model.decoder(torch.tensor([context]), need_pad=False)[:, 0]
    else:
        decoder_out = model.decoder(torch.tensor([[0, *history]]))[:, -1]
    dec = model.joiner.decoder_proj(decoder_out)
    return model.joiner(model.joiner.encoder_proj(frame[None]), dec, project_input=False)[0].log_softmax(-1)


def initial_length(model):
    """Tokens that a hypothesis has before an utterance, which its length counts."""
    return getattr(model.decoder, "context_size", 1)


def all_paths(model, x, vocab_size):
    """Every path with at most one token per frame through frames ``x`` (T, C): (labels with blanks,
    log-probability).
    """
    paths = [((), 0.0)]
    for frame in x:
        grown = []
        for labels, score in paths:
            history = [label for label in labels if label != 0]
            grown += [
                ((*labels, k), score + v) for k, v in enumerate(log_probs(model, frame, history).tolist())
            ]
        paths = grown
    assert len(paths) == vocab_size ** len(x)
    return paths


def first(search):
    """The one-best of a search that returns n-best lists."""
    return lambda *args, **options: one_best(search(*args, **options))


def log_sum(values):
    """log(sum(exp(values)))."""
    values = list(values)
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(v - top) for v in values))
