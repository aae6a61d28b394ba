"""Masked batch normalisation against the valid frames alone, and two processes against one."""

from multiprocessing import get_context

import pytest
import torch
from torch import nn

from asr_core.nn.batch_norm import MaskedBatchNorm1d
from asr_core.nn.masks import make_pad_mask
from asr_core.training.distributed.launch import RankInfo, free_port
from asr_core.training.distributed.world import ProcessGroup

LENS = torch.tensor([7, 3, 1])


def layer(momentum=0.1):
    torch.manual_seed(0)
    norm = MaskedBatchNorm1d(4, eps=1e-3, momentum=momentum).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def batch():
    torch.manual_seed(1)
    return (torch.randn(3, 7, 4).double() * 3 + 100).requires_grad_(), make_pad_mask(LENS, 7)


def test_valid_frames_alone_are_seen():
    norm, (x, mask) = layer(), batch()
    y = norm(x, mask)
    frames = x[~mask]
    mean, var = frames.mean(0), frames.var(0, unbiased=False)
    torch.testing.assert_close(y[~mask], (frames - mean) / (var + 1e-3).sqrt() * norm.weight + norm.bias)
    assert not y[mask].any()
    torch.testing.assert_close(norm.running_mean, 0.1 * mean.detach())
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * var.detach())
    assert int(norm.num_batches_tracked) == 1
    with torch.no_grad():
        garbage = x.masked_fill(mask.unsqueeze(-1), 1e6)
        torch.testing.assert_close(layer()(garbage, mask), y.detach())


def test_without_padding_it_is_torchs():
    norm, x = layer(), batch()[0]
    theirs = nn.BatchNorm1d(4, eps=1e-3).double()
    theirs.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), theirs(x.transpose(1, 2)).transpose(1, 2))
    norm.eval(), theirs.eval()
    theirs.load_state_dict(norm.state_dict())
    want = theirs(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(norm(x), want)
    torch.testing.assert_close(torch.jit.script(norm)(x), want)
    mask = batch()[1]
    torch.testing.assert_close(norm(x, mask), want.masked_fill(mask.unsqueeze(-1), 0.0))


@pytest.mark.parametrize("masked", [True, False])
def test_gradients(masked):
    norm, (x, mask) = layer(), batch()

    def run(x, weight, bias):
        return torch.func.functional_call(
            norm, {"weight": weight, "bias": bias}, (x, mask if masked else None)
        )

    assert torch.autograd.gradcheck(run, (x.detach().sub(100).requires_grad_(), norm.weight, norm.bias))


def test_float32_inside_half_precision():
    norm = layer().float()
    x = (torch.randn(2, 50, 4) + 300).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer().float()(x.float()), atol=0.02, rtol=0.02)


def _gradients(x, mask, norm):
    x = x.detach().requires_grad_()
    y = norm(x, mask)
    y.pow(3).sum().backward()
    return (
        y.detach(),
        x.grad,
        norm.weight.grad,
        norm.bias.grad,
        norm.running_mean.clone(),
        norm.running_var.clone(),
    )


def _rank(rank, path, port):
    """Be one of two processes, each with its utterances; write the results."""
    world = ProcessGroup(
        RankInfo(rank, 2, rank, 2, f"tcp://127.0.0.1:{port}", True), 60.0, cuda=False, params={}
    )
    norm, (x, mask) = layer(), batch()
    mine = slice(0, 1) if rank == 0 else slice(1, 3)
    with world.shared_statistics(nn.Sequential(norm), True):
        found = [*_gradients(x[mine], mask[mine], norm)]
    with world.shared_statistics(
        norm, has_batch=rank == 0
    ):  # the other one has none, so this one is on its own
        if rank == 0:
            found.append(layer()(x[mine], mask[mine]).detach())
            norm(x[mine] + 1, mask[mine])
    found += [norm.running_mean, norm.running_var]
    with world.shared_statistics(nn.Linear(2, 2), has_batch=True):  # asks nobody
        torch.save(found, path / f"{rank}.pt")
    world.close()


def test_two_processes_like_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    port = free_port()
    ranks = [get_context("fork").Process(target=_rank, args=(rank, tmp_path, port)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]
    x, mask = batch()
    y, dx, dweight, dbias, mean, var = _gradients(x, mask, layer())
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    torch.testing.assert_close(torch.cat([first[0], second[0]]), y)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), dx)
    torch.testing.assert_close(first[2] + second[2], dweight)
    torch.testing.assert_close(first[3] + second[3], dbias)
    for found in (first, second):
        torch.testing.assert_close(found[4], mean)
        torch.testing.assert_close(found[5], var)
    for mine, other in zip(first[-2:], second[-2:]):  # the rank without a batch has learnt what the other saw
        torch.testing.assert_close(mine, other, rtol=0, atol=0)
    assert not torch.allclose(first[-2], mean)
    torch.testing.assert_close(first[6], layer()(x[:1], mask[:1]).detach())
    assert not torch.allclose(first[6], first[0])
