"""Neural language models: states carried are as good as whole histories, batches as single
sentences.
"""

import pytest
import torch

from asr_core.lm.neural import RnnLm, TransformerLm
from asr_core.lm.options import RnnOptions, TransformerOptions
from asr_core.utils.errors import UserError

V = 11
MAKE = {
    "rnn": lambda: RnnLm(V, RnnOptions(8, 8, 2)),
    "transformer": lambda: TransformerLm(V, TransformerOptions(8, 8, 12, 2, 3)),
}


@pytest.fixture(params=MAKE)
def lm(request):
    torch.manual_seed(0)
    model = MAKE[request.param]().double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def random_sentences(n, longest, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randint(2, V, (int(torch.randint(0, longest, (1,), generator=g)),), generator=g).tolist()
        for _ in range(n)
    ]


@torch.no_grad()
def next_log_probs(lm, history):
    """The definition: run the whole history at once, alone."""
    tokens = torch.tensor([[1, *history]])
    return lm.score_tokens(tokens, torch.tensor([tokens.size(1)]))[0][0]


def test_a_sentence_is_the_sum_of_its_tokens(lm):
    sentences = [*random_sentences(6, 9), []]
    got = lm.sentence_log_probs(sentences)
    for sentence, value in zip(sentences, got):
        expected = sum(next_log_probs(lm, sentence[:i])[token] for i, token in enumerate([*sentence, 1]))
        assert value == pytest.approx(float(expected), abs=1e-4)
        assert lm.sentence_log_probs([sentence])[0] == pytest.approx(float(value), abs=1e-5)
    assert next_log_probs(lm, [3]).exp().sum() == pytest.approx(1.0, abs=1e-5)
    assert lm.sentence_log_probs([]).shape == (0,)


def test_states_carried_in_pieces_of_unequal_length(lm):
    g = torch.Generator().manual_seed(1)
    histories, states = [[] for _ in range(5)], None
    for step in range(6):
        lens = torch.randint(1, 4, (5,), generator=g) if step else torch.randint(1, 3, (5,), generator=g)
        tokens = torch.randint(2, V, (5, int(lens.max())), generator=g)
        if step == 0:
            tokens[:, 0] = 1
        log_probs, states = lm.score_tokens(tokens, lens, states)
        for i in range(5):
            histories[i] += tokens[i, : lens[i]].tolist()
            torch.testing.assert_close(
                log_probs[i], next_log_probs(lm, histories[i][1:]), atol=1e-5, rtol=1e-5
            )


def test_a_search_may_pick_and_replace_states(lm):
    """As beam search does: hypotheses are reordered and copied, and only some of them get a token
    in a frame.
    """
    g = torch.Generator().manual_seed(2)
    n = 4
    histories = [[] for _ in range(n)]
    _, states = lm.score_tokens(torch.ones(n, 1, dtype=torch.int64), torch.ones(n, dtype=torch.int64))
    for _ in range(8):
        parents = torch.randint(0, n, (n,), generator=g)
        states, histories = lm.select_states(states, parents), [list(histories[p]) for p in parents]
        chosen = torch.nonzero(torch.rand(n, generator=g) < 0.5)[:, 0]
        if not len(chosen):
            continue
        tokens = torch.randint(2, V, (len(chosen), 1), generator=g)
        log_probs, new = lm.score_tokens(
            tokens, torch.ones(len(chosen), dtype=torch.int64), lm.select_states(states, chosen)
        )
        states = lm.replace_states(states, chosen, new)
        for row, i in enumerate(chosen.tolist()):
            histories[i].append(int(tokens[row, 0]))
            torch.testing.assert_close(log_probs[row], next_log_probs(lm, histories[i]), atol=1e-5, rtol=1e-5)


def test_later_tokens_and_padding_change_nothing(lm):
    x = torch.randint(2, V, (2, 6))
    changed = x.clone()
    changed[:, 4:] = 3
    lens = torch.tensor([6, 3])
    a, b = lm(x, x, lens), lm(changed, x, lens)
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert (a[1, 3:] == 0).all() and (a[0] > 0).all()


def test_names_are_those_of_icefall_and_weights_are_tied():
    lm = MAKE["rnn"]()
    layers = [
        f"rnn.{kind}_l{i}" for i in range(2) for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert list(lm.state_dict()) == [
        "input_embedding.weight",
        *layers,
        "output_linear.weight",
        "output_linear.bias",
    ]
    for model in (lm, MAKE["transformer"]()):
        assert model.output_linear.weight is model.input_embedding.weight
    with pytest.raises(UserError, match="--embedding-dim"):
        RnnLm(V, RnnOptions(8, 12, 1))
    with pytest.raises(UserError, match="heads"):
        TransformerLm(V, TransformerOptions(10, 10, 8, 4, 1))
