"""Functions with k2's names beside the losses: recursions against the sum over all paths, scores of
arcs against the losses, windows that leave every utterance a path.
"""

import itertools

import pytest
import torch

from asr_core.ops.rnnt_loss import (
    do_rnnt_pruning,
    get_hat_logprobs_pruned,
    get_rnnt_logprobs,
    get_rnnt_logprobs_joint,
    get_rnnt_logprobs_pruned,
    get_rnnt_logprobs_smoothed,
    get_rnnt_prune_ranges,
    get_rnnt_prune_ranges_deprecated,
    joint_mutual_information_recursion,
    mutual_information_recursion,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

B, S, T, C = 4, 3, 4, 5
TYPES = ["regular", "modified", "constrained"]
BOUNDARY = torch.tensor([[0, 0, 3, 4], [0, 0, 2, 3], [1, 1, 3, 4], [0, 0, 0, 2]])
backends = pytest.mark.parametrize("backend", ["torch", "numba"])
types = pytest.mark.parametrize("rnnt_type", TYPES)
bounds = pytest.mark.parametrize("boundary", [None, BOUNDARY])


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed + sum(shape)))


def arcs(regular, dtype=torch.float64, seed=0):
    return random(B, S, T + regular, dtype=dtype, seed=seed), random(B, S + 1, T, dtype=dtype, seed=seed + 1)


def sum_of_paths(px, py, limits):
    """The score of one lattice, path by path, with autograd history."""
    s_first, t_first, s_last, t_last = limits
    regular = px.shape[1] != py.shape[1]
    steps = ((1, 0), (0, 1)) if regular else ((1, 1), (0, 1))
    scores = []
    most = s_last - s_first + t_last - t_first
    for length in range(most + 1):
        for path in itertools.product(steps, repeat=length):
            s, t, score = s_first, t_first, py.new_zeros(())
            for ds, dt in path:
                if s + ds > s_last or t + dt > t_last:
                    break
                score = score + (px[s, t] if ds else py[s, t])
                s, t = s + ds, t + dt
            else:
                if (s, t) == (s_last, t_last):
                    scores.append(score)
    return torch.logsumexp(torch.stack(scores), 0) if scores else py.new_tensor(float("-inf"))


@backends
@bounds
@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recursion_is_the_sum_over_all_paths(regular, boundary, dtype, backend):
    px, py = (x.requires_grad_() for x in arcs(regular, dtype))
    limits = BOUNDARY if boundary is not None else torch.tensor([[0, 0, S, T]] * B)
    expected = torch.stack([sum_of_paths(px[b], py[b], limits[b].tolist()) for b in range(B)])
    grads = torch.autograd.grad(expected[expected.isfinite()].sum(), (px, py))
    scores, counts = mutual_information_recursion(px, py, boundary, return_grad=True, backend=backend)
    torch.testing.assert_close(scores, expected)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=dtype)
    found = torch.autograd.grad((scores * weights).nan_to_num(neginf=0.0).sum(), (px, py))
    for count, grad, back in zip(counts, grads, found):
        torch.testing.assert_close(count, grad, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(back, weights[:, None, None] * grad, atol=1e-6, rtol=1e-5)
        assert not count.requires_grad
    alone = mutual_information_recursion(px, py, boundary, backend=backend)
    assert torch.equal(alone, scores)


@backends
@bounds
@pytest.mark.parametrize("regular", [True, False])
def test_gradients_are_the_derivatives(regular, boundary, backend):
    px, py = (x.requires_grad_() for x in arcs(regular))
    limits = BOUNDARY[[0, 1, 2, 1]] if boundary is not None else None
    assert torch.autograd.gradcheck(
        lambda x, y: mutual_information_recursion(x, y, limits, backend=backend), (px, py)
    )


@backends
@bounds
@pytest.mark.parametrize("regular", [True, False])
def test_joint_recursion_shares_the_score_out(regular, boundary, backend):
    terms = [arcs(regular, seed=seed) for seed in (0, 10, 20)]
    px, py = ([x.requires_grad_() for x in xs] for xs in zip(*terms))
    whole = [sum(xs).detach().requires_grad_() for xs in (px, py)]
    expected, counts = mutual_information_recursion(*whole, boundary, return_grad=True, backend=backend)
    shares = joint_mutual_information_recursion(px, py, boundary, backend=backend)
    assert shares.shape == (3, B)
    possible = expected.isfinite()
    torch.testing.assert_close(shares.sum(0)[possible], expected[possible])
    for n in (1, 2):
        mean = (px[n] * counts[0]).sum((1, 2)) + (py[n] * counts[1]).sum((1, 2))
        torch.testing.assert_close(shares[n], mean)
    shares[:, possible].sum().backward()
    for x in px:
        torch.testing.assert_close(x.grad[possible], counts[0][possible])
    for y in py:
        torch.testing.assert_close(y.grad[possible], counts[1][possible])
    one = joint_mutual_information_recursion([whole[0]], [whole[1]], boundary, backend=backend)
    torch.testing.assert_close(one[0, possible], expected[possible])


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    symbols = torch.randint(1, C, (B, S), generator=generator)
    return random(B, S + 1, C, seed=5), random(B, T, C, seed=6), symbols


@backends
@bounds
@types
def test_scores_of_arcs_add_up_to_the_losses(inputs, rnnt_type, boundary, backend):
    lm, am, symbols = inputs
    common = dict(boundary=boundary, rnnt_type=rnnt_type)
    how = dict(**common, reduction="none", backend=backend)
    logits = torch.tanh(am[:, :, None] + lm[:, None])
    ranges = torch.tensor([[0, 1], [0, 1], [1, 2], [2, 3]]).repeat(B, 1, 1)
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
    pruned = torch.tanh(am_pruned + lm_pruned)
    cases = [
        (get_rnnt_logprobs(lm, am, symbols, 0, **common), rnnt_loss_simple(lm, am, symbols, 0, **how)),
        (
            get_rnnt_logprobs_smoothed(lm, am, symbols, 0, 0.25, 0.1, **common),
            rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.1, **how),
        ),
        (get_rnnt_logprobs_joint(logits, symbols, 0, **common), rnnt_loss(logits, symbols, 0, **how)),
        (
            get_rnnt_logprobs_joint(logits, symbols, 0, use_hat_loss=True, **common),
            rnnt_loss(logits, symbols, 0, use_hat_loss=True, **how),
        ),
        (
            get_rnnt_logprobs_pruned(pruned, symbols, ranges, 0, **common),
            rnnt_loss_pruned(pruned, symbols, ranges, 0, **how),
        ),
        (
            get_hat_logprobs_pruned(pruned, symbols, ranges, 0, **common),
            rnnt_loss_pruned(pruned, symbols, ranges, 0, use_hat_loss=True, **how),
        ),
    ]
    for (px, py), loss in cases:
        assert px.shape == (B, S, T + (rnnt_type == "regular")) and py.shape == (B, S + 1, T)
        if rnnt_type == "regular":
            ends = [T] * B if boundary is None else boundary[:, 3].tolist()
            assert all((px[b, :, end] == float("-inf")).all() for b, end in enumerate(ends))
        torch.testing.assert_close(
            -mutual_information_recursion(px, py, boundary, backend=backend), loss, atol=1e-8, rtol=1e-6
        )


@types
def test_gradients_through_the_scores_are_those_of_the_losses(inputs, rnnt_type):
    lm, am, symbols = inputs
    lm, am = lm.requires_grad_(), am.requires_grad_()
    limits = BOUNDARY[[0, 1, 2, 1]]
    common = dict(boundary=limits, rnnt_type=rnnt_type)
    px, py = get_rnnt_logprobs_smoothed(lm, am, symbols, 0, 0.25, 0.1, **common)
    one = torch.autograd.grad(-mutual_information_recursion(px, py, limits).sum(), (lm, am))
    other = torch.autograd.grad(
        rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.1, reduction="sum", **common), (lm, am)
    )
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b)


@backends
@types
def test_the_blank_of_a_hybrid_autoregressive_transducer_has_a_sigmoid(inputs, rnnt_type, backend):
    _, _, symbols = inputs
    logits = random(B, T, S + 1, C).requires_grad_()
    blank = 2
    symbols = torch.where(symbols == blank, symbols + 1, symbols)
    keep = [v for v in range(C) if v != blank]
    expected = torch.empty_like(logits)
    p = torch.sigmoid(logits[..., blank])
    expected[..., keep] = (1 - p).unsqueeze(-1) * logits[..., keep].softmax(-1)
    expected[..., blank] = p
    how = dict(rnnt_type=rnnt_type, boundary=BOUNDARY, reduction="none", backend=backend)
    a = rnnt_loss(logits, symbols, blank, use_hat_loss=True, **how)
    b = rnnt_loss(expected.log(), symbols, blank, **how)  # sums to 1 already
    torch.testing.assert_close(a, b)
    finite = a.isfinite()
    one, other = (torch.autograd.grad(x[finite].sum(), logits, retain_graph=True)[0] for x in (a, b))
    torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(
        lambda x: rnnt_loss(x, symbols, blank, use_hat_loss=True, **how)[finite], logits
    )


@backends
def test_windows_are_wide_enough_for_every_utterance(backend):
    """max over utterances of trunc((S - 1) / T) + 2, where the regular lattice needs it."""
    num = {"S": 20, "T": 12}
    limits = [(20, 12), (20, 7), (5, 1), (1, 1), (0, 3), (4, 9)]
    boundary = torch.tensor([[0, 0, s, t] for s, t in limits])
    lm, am = random(6, num["S"] + 1, C), random(6, num["T"], C)
    symbols = torch.randint(1, C, (6, num["S"]), generator=torch.Generator().manual_seed(0))
    for keep, needed in ((slice(0, 6), 6), (slice(0, 2), 4), (slice(0, 1), 3), (slice(3, 6), 2)):
        args = lm[keep], am[keep], symbols[keep], 0
        common = dict(boundary=boundary[keep], reduction="none", backend=backend)
        _, counts = rnnt_loss_simple(*args, return_grad=True, **common)
        ranges = get_rnnt_prune_ranges(*counts, boundary[keep], s_range=2, backend=backend)
        assert ranges.shape[2] == needed
        logits = sum(do_rnnt_pruning(am[keep], lm[keep], ranges, backend=backend))
        pruned = rnnt_loss_pruned(logits, symbols[keep], ranges, 0, **common)
        assert pruned.isfinite().all()
        assert (pruned >= rnnt_loss_simple(*args, **common) - 1e-9).all()  # fewer paths
        assert get_rnnt_prune_ranges(*counts, boundary[keep], 9, backend=backend).shape[2] == 9
        early = get_rnnt_prune_ranges_deprecated(*counts, boundary[keep], 2, backend=backend)
        logits = sum(do_rnnt_pruning(am[keep], lm[keep], early, backend=backend))
        assert rnnt_loss_pruned(logits, symbols[keep], early, 0, **common).isfinite().all()
    _, counts = rnnt_loss_simple(
        lm, am, symbols, 0, boundary=boundary, rnnt_type="modified", return_grad=True
    )
    assert get_rnnt_prune_ranges(*counts, boundary, s_range=2, backend=backend).shape[2] == 2


def test_refusals():
    px, py = arcs(True)
    for x, y, boundary in (
        (px[..., :3], py, None),
        (px, py[:, :3], None),
        (px.float(), py, None),
        (px[0], py[0], None),
        (px, py, BOUNDARY + 1),
        (px, py, BOUNDARY[:2]),
    ):
        with pytest.raises(ValueError):
            mutual_information_recursion(x, y, boundary)
    with pytest.raises(ValueError):
        joint_mutual_information_recursion([px], [py, py])
    with pytest.raises(ValueError):
        joint_mutual_information_recursion([], [])
    with pytest.raises(ValueError, match="rnnt_type"):
        get_rnnt_logprobs(random(B, S + 1, C), random(B, T, C), torch.ones(B, S).long(), 0, rnnt_type="x")


def test_windows_need_nothing_from_the_device_if_the_boundary_is_on_the_cpu():
    counts = [x.to("meta") for x in arcs(True)]  # a device from which nothing can be read
    boundary = torch.tensor([[0, 0, 3, 2], [0, 0, 1, 4], [0, 0, 0, 0], [0, 0, 3, 4]])
    assert get_rnnt_prune_ranges(*counts, boundary, s_range=2).shape == (B, T, 3)
