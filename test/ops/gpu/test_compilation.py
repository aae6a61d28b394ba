"""Triton's compiler accepts the kernels: the interpreter takes programs that it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "gpu/gpu_check/compiled.py"
# Launches with sizes of 1, which are constants to the compiler, and without.
SNIPPETS = {
    "activations": """
import torch
from asr_core.ops.gpu import activations as a
for shape, dtype in (((40, 3, 384), torch.bfloat16), ((1, 1, 1), torch.float32)):
    x, mask = torch.zeros(shape, dtype=dtype), torch.zeros((1, *shape[1:]), dtype=dtype)
    y, codes = a.swoosh_and_codes(x, 1.0, 0.3, 255.0, 20.4)
    a.swoosh_forward(x, 1.0, 0.3), a.swoosh_backward(x, x, 1.0), a.slope_backward(codes, x, 0.004, -0.08)
    a.double_swish_and_codes(x, 204.0, 9.0), a.double_swish_forward(x), a.double_swish_backward(x, x)
    a.swoosh_masked(x, mask, 1.0, 0.3), a.swoosh_both(x, x, mask, 1.0, 0.3), a.swoosh_both(x, x, None, 1.0, 0.3)
""",
    "norms": """
import torch
from asr_core.ops.gpu import norms
for shape, dtype in (((40, 3, 384), torch.bfloat16), ((2, 2048), torch.float16), ((1, 1), torch.float32)):
    x = torch.zeros(shape, dtype=dtype)
    for bias in (None, torch.zeros(shape[-1])):
        y, inv = norms.forward(x, bias, torch.tensor(0.1))
        norms.backward(x, x, bias, torch.tensor(0.1), inv)
""",
    "balancer": """
import torch
from asr_core.ops.gpu import balancer, bypass, centring, limits
for shape, dtype in (((40, 3, 384), torch.bfloat16), ((1, 1, 1), torch.float32)):
    x = torch.zeros(shape, dtype=dtype)
    for part, axis in ((x, -1), (x, 1), (x[..., shape[-1] // 2 :], -1)):
        balancer.balance(part, torch.zeros_like(part), axis, (-0.5, 0.5, 0.4, 3.0), 0.04, 1e-6)
    centring.centred(x.flatten(0, 1))
    bypass.backward(x, x, torch.zeros(shape[1:]), x)
    limits.turn_outward(x, x, -1.0, 1.0)
""",
    "attention": """
import torch
from asr_core.ops.gpu import attention as a
for (H, N, T, D, P), dtype in (((4, 3, 75, 32, 4), torch.bfloat16), ((1, 1, 1, 1, 1), torch.float32)):
    q, k, p = (torch.zeros(T, N, H, 2 * n, dtype=dtype)[..., :n].permute(2, 1, 0, 3) for n in (D, D, P))
    pos = torch.zeros(2 * T - 1, H, P, dtype=dtype).transpose(0, 1)
    for p, mask in ((p, torch.zeros(N, T, T, dtype=torch.bool)), (p, torch.zeros(N, 1, T, dtype=torch.bool)), (None, None)):
        w, first = a.weights_forward(q, k, p, pos, mask, -1000.0)
        for penalty in (0.0, 1e-4):
            a.weights_backward(q, k, p, pos, mask, w, w, first, 25.0, penalty)
        a.weights_backward(q, k, p, pos, mask, w, w, None, 25.0, 0.0)
""",
    "ctc": """
import torch
from asr_core.ops.gpu import ctc
for N, T, V, L in ((3, 75, 500, 21), (1, 1, 2, 1), (2, 4, 6, 0)):
    x, labels, lens = torch.zeros(N, T, V), torch.zeros(N, L, dtype=torch.int64), torch.zeros(N, dtype=torch.int64)
    loss, alpha = ctc.losses(x, labels, lens, lens, 0)
    ctc.gradient(x, labels, lens, lens, 0, loss, alpha, loss)
""",
    "back-off": """
import torch
from asr_core.ops.backoff import BackOff, BackOffArcs
from asr_core.ops.gpu import backoff
for arcs, root, depth in ((40, 0, 3), (1, 1, 1), (0, 0, 0)):
    long, short, real = torch.zeros(5, dtype=torch.int64), torch.zeros(arcs, dtype=torch.int32), torch.zeros(5)
    begin = torch.tensor([0, 0, *[arcs] * 4])
    columns = BackOffArcs(begin, short, short, torch.zeros(arcs), long, real, long, real, long, real)
    automaton = BackOff(columns, first=0, root=root, num_words=5, depth=depth)
    for shape in ((7, 4), (1, 1)):
        token = torch.zeros(shape, dtype=torch.int64)
        backoff.look_up(automaton, token, token)
""",
    "waveforms": """
import torch
from asr_core.ops.gpu import waveform_sum as w
for N, L, width in ((3, 2, 5000), (1, 1, 1)):
    layers = torch.zeros(N, L, dtype=torch.int64)
    w.sum_of_waveforms(torch.zeros(9), torch.ones(1), torch.zeros(1, 3, dtype=torch.int64), layers, layers[:, 0], width)
""",
    "perceptron": """
import torch
from asr_core.ops.gpu import perceptron as p
for (N, C, T, F, H), dtype in (((3, 128, 75, 19, 384), torch.bfloat16), ((1, 1, 1, 1, 1), torch.float32)):
    x, keep = torch.zeros(N, C, T, F, dtype=dtype).to(memory_format=torch.channels_last), torch.zeros(N)
    layers = torch.zeros(H, C), torch.zeros(H), torch.zeros(C, H)
    for keep, balance in ((None, []), (keep, [-0.1, 0.1, 0.5, 1.0, 0.04])):
        p.forward(x, x, *layers, torch.zeros(C), keep, 4.0, 0.035)
        p.backward(x, x, *layers, keep, balance, 4.0, 0.035, 1e-6)
""",
    "convolutions": """
import torch
from asr_core.ops.gpu import chunk_causal, depthwise as d, gate
for (T, N, C, K, F), dtype in (((75, 3, 192, 31, 19), torch.bfloat16), ((1, 1, 1, 1, 1), torch.float32)):
    x, w, bias = torch.zeros(T, N, C, dtype=dtype), torch.zeros(C, 1, K), torch.zeros(C)
    for chunk in (0, 16):
        d.conv1d(x, w, bias, K // 2, chunk), d.conv1d(x, w, None, K // 2, chunk, flip=True)
        d.conv1d_weight_grad(x, x, w, K // 2, chunk)
    causal, edges = torch.zeros(C, 1, K // 2 + 1), torch.zeros(2, C, K)
    for lens in (None, torch.full((N,), T)):
        y, z = chunk_causal.forward(x, (causal, bias, w, bias, edges), 16, lens)
        chunk_causal.backward(x, z, y, (causal, w, edges), 16, lens)
    x = torch.zeros(N, C, T, F, dtype=dtype).to(memory_format=torch.channels_last)
    w = torch.zeros(C, 1, 7, 7)
    for lens in (None, torch.full((N,), T)):
        d.conv2d(x, w, bias, lens), d.conv2d(x, w, None, lens, flip=True), d.conv2d_weight_grad(x, x, w, lens)
    x = torch.zeros(T, N, 2 * C, dtype=dtype)
    for mask in (None, torch.zeros(N, T, dtype=torch.bool).t()):
        gate.gate_backward(x, gate.gate_forward(x, mask), mask)
""",
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_kernels_compile_for_a_gpu(name):
    backends = pytest.importorskip("triton.backends")
    if "nvidia" not in backends.backends:
        pytest.skip("this triton has no compiler for NVIDIA's GPUs")
    command = [sys.executable, str(PROGRAM), "--code", SNIPPETS[name]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) > 2  # rows of the table
