"""Triton's compiler accepts the kernels: the interpreter takes programs that it refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# Launches with sizes of 1, which are constants to the compiler, and without.
SNIPPETS = {
    "activations": """
from asr_core.ops.gpu import activations as a
for shape, dtype in (((40, 3, 384), torch.bfloat16), ((1, 1, 1), torch.float32)):
    x, mask = torch.zeros(shape, dtype=dtype), torch.zeros((1, *shape[1:]), dtype=dtype)
    y, codes = a.swoosh_and_codes(x, 1.0, 0.3, 255.0, 20.4)
    a.swoosh_forward(x, 1.0, 0.3), a.swoosh_backward(x, x, 1.0), a.slope_backward(codes, x, 0.004, -0.08)
    a.double_swish_and_codes(x, 204.0, 9.0), a.double_swish_forward(x), a.double_swish_backward(x, x)
    a.swoosh_masked(x, mask, 1.0, 0.3), a.swoosh_both(x, x, mask, 1.0, 0.3), a.swoosh_both(x, x, None, 1.0, 0.3)
""",
    "norms": """
from asr_core.ops.gpu import norms
for shape, dtype in (((40, 3, 384), torch.bfloat16), ((2, 2048), torch.float16), ((1, 1), torch.float32)):
    x = torch.zeros(shape, dtype=dtype)
    for bias in (None, torch.zeros(shape[-1])):
        y, inv = norms.forward(x, bias, torch.tensor(0.1))
        norms.backward(x, x, bias, torch.tensor(0.1), inv)
""",
    "balancer": """
from asr_core.ops.gpu import balancer, bypass, centring, limits
for shape, dtype in (((40, 3, 384), torch.bfloat16), ((1, 1, 1), torch.float32)):
    x = torch.zeros(shape, dtype=dtype)
    for part, axis in ((x, -1), (x, 1), (x[..., shape[-1] // 2 :], -1)):
        balancer.balance(part, torch.zeros_like(part), axis, (-0.5, 0.5, 0.4, 3.0), 0.04, 1e-6)
    centring.centred(x.flatten(0, 1))
    bypass.backward(x, x, torch.zeros(shape[1:]), x)
    limits.turn_outward(x, x, -1.0, 1.0)
""",
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_kernels_compile_for_a_gpu(name, tmp_path):
    backends = pytest.importorskip("triton.backends")
    if "nvidia" not in backends.backends:
        pytest.skip("this triton has no compiler for NVIDIA's GPUs")
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env.update(TRITON_CACHE_DIR=str(tmp_path), PYTHONPATH=str(ROOT))
    command = [sys.executable, str(ROOT / "test/helpers/compile_for_gpu.py"), SNIPPETS[name]]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) > 5
