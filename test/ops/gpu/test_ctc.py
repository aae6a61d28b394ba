"""The CTC loss in a Triton kernel against torch's, in Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F

from asr_core.ops import ctc_loss as module
from asr_core.ops.ctc_loss import ctc_loss

# repeated labels, none, one that takes all frames, and one of which the batch has more frames
LABELS = [[3, 3, 1, 2], [], [2, 1, 2], [4]]
LENS = torch.tensor([9, 7, 3, 1])


def logits(frames=9, seed=0):
    return torch.randn(len(LABELS), frames, 6, generator=torch.Generator().manual_seed(seed))


def reference(x, lens, y):
    targets = torch.tensor([label for labels in y for label in labels])
    log_probs = x.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, targets, lens, torch.tensor([len(labels) for labels in y]), reduction="none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients(dtype):
    x = logits().to(dtype)
    weights = torch.tensor([1.0, 0.5, -2.0, 1.5])
    got, want = x.detach().requires_grad_(), x.double().requires_grad_()
    losses, expected = ctc_loss(got.float().log_softmax(-1), LENS, LABELS), reference(want, LENS, LABELS)
    torch.testing.assert_close(losses, expected.float(), rtol=1e-5, atol=1e-5)
    (losses * weights).sum().backward()
    (expected * weights).sum().backward()
    error = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(got.grad.double(), want.grad, rtol=error, atol=error)


def test_long_utterances():
    labels = [[1 + i % 5 for i in range(40)], [5, 5] * 10]
    x = 3 * torch.randn(2, 90, 6, generator=torch.Generator().manual_seed(1))
    lens = torch.tensor([90, 70])
    got, want = x.clone().requires_grad_(), x.double().requires_grad_()
    losses, expected = ctc_loss(got.log_softmax(-1), lens, labels), reference(want, lens, labels)
    torch.testing.assert_close(losses, expected.float(), rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(got.grad, want.grad.float(), rtol=1e-4, atol=1e-5)


def test_lengths_that_are_a_column_of_a_table():
    x, labels = logits()[:2], [[1, 2], [3]]
    table = torch.tensor([[0, 9], [0, 7]])
    losses = ctc_loss(x.log_softmax(-1), table[:, 1], labels)
    torch.testing.assert_close(losses, reference(x, table[:, 1], labels))


def test_labels_that_do_not_fit():
    x = logits(frames=4).requires_grad_()
    losses = ctc_loss(x.log_softmax(-1), torch.tensor([4, 4, 3, 0]), LABELS)
    assert losses.isinf().tolist() == [True, False, False, True]  # two equal labels need a blank
    losses[1:3].sum().backward()
    assert x.grad[1:3].isfinite().all() and x.grad[2, 3].eq(0).all()
    x.grad = None
    ctc_loss(x.log_softmax(-1), torch.tensor([4, 4, 3, 2]), LABELS).sum().backward()
    assert x.grad[0].isnan().all() and x.grad[1:].isfinite().all()


def test_values_that_are_no_numbers_reach_the_loss():
    x = logits()
    x[2, 1] = float("nan")
    losses = ctc_loss(x, LENS, LABELS)
    assert losses.isnan().tolist() == [False, False, True, False]


def test_the_kernel_is_what_runs(monkeypatch):
    monkeypatch.setattr(module.F, "ctc_loss", None)
    ctc_loss(logits().log_softmax(-1), LENS, LABELS)
