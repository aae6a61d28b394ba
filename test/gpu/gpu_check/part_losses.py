"""Part: RNN-T losses, forward and backward, with the kernels, in plain torch and by torchaudio."""

from typing import Any, Callable, Dict, List, NamedTuple

import torch
from torch import Tensor, nn

from asr_core.models import ModelOptions, transducer_loss
from asr_core.models.joiner import Joiner
from asr_core.ops import rnnt_loss as rnnt
from asr_core.predictors.build import build_predictor
from asr_core.utils.options import from_params
from gpu_check.launches import kernels_off
from gpu_check.setup import Setup, Skipped
from gpu_check.timing import stage_times
from gpu_check.windows import MOST_APART, SameWindows


class Losses:
    """Losses of a joiner of the usual width at (N, T, U, V), window 5, from encoder output.

    Args:
      setup: sizes and device.
    """

    def __init__(self, setup: Setup) -> None:
        torch.manual_seed(0)
        self.device = setup.device
        n, t, u, v, width = (2, 12, 4, 9, 8) if setup.small else (30, 400, 80, 500, 512)
        opts = from_params(ModelOptions, {"decoder_dim": width, "joiner_dim": width})
        # in evaluation mode: balancers act by chance
        self.decoder = build_predictor(opts, v, 0).to(self.device).eval()
        self.joiner = Joiner(width, width, width, v).to(self.device).eval()
        self.simple = nn.ModuleList([nn.Linear(width, v) for _ in range(2)]).to(self.device)
        self.encoder_out = torch.randn(n, t, width, device=self.device, requires_grad=True)
        generator = torch.Generator().manual_seed(0)
        self.lens = torch.tensor([t - i * t // (4 * n) for i in range(n)])
        counts = [max(1, u - i * u // (4 * n)) for i in range(n)]
        self.y = [torch.randint(1, v, (k,), generator=generator).tolist() for k in counts]
        self.sizes = f"N {n}, T {t}, U {u}, V {v}, width {width}, window 5"

    def lattice(self) -> transducer_loss.LatticeInputs:
        """Return the inputs besides the encoder's output."""
        return transducer_loss.prepare_lattice(
            self.decoder,
            self.lens.to(self.device),
            self.y,
            device=torch.device(self.device),
            delay_penalty=0.0,
            fast_emit_lambda=0.0,
        )

    def pruned(self) -> Tensor:
        """Return the usual sum of simple and pruned loss."""
        simple, pruned = transducer_loss.pruned_losses(
            self.joiner,
            (self.simple[0], self.simple[1]),
            self.encoder_out,
            self.lattice(),
            prune_range=5,
            smoothing=transducer_loss.Smoothing(0.0, 0.25),
        )
        return 0.5 * simple.sum() + pruned.sum()

    def full(self) -> Tensor:
        """Return the loss over all alignments."""
        return transducer_loss.full_loss(self.joiner, self.encoder_out, self.lattice()).sum()

    def all_logits(self, backend: str) -> Tensor:
        """Return the same from all logits at once."""
        lattice = self.lattice()
        am, lm = self.joiner.encoder_proj(self.encoder_out), self.joiner.decoder_proj(lattice.decoder_out)
        logits = self.joiner(am.unsqueeze(2), lm.unsqueeze(1), project_input=False)
        return rnnt.rnnt_loss(
            logits.float(),
            lattice.symbols,
            0,
            lattice.arguments["boundary"],
            reduction="sum",
            backend=backend,
        )

    def parameters(self) -> List[Tensor]:
        """Return what has gradients."""
        modules = (self.decoder, self.joiner, self.simple)
        return [self.encoder_out, *(p for module in modules for p in module.parameters())]


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return the losses."""
    dtypes = {"float32": None, "bfloat16": torch.bfloat16}
    found: Dict[str, Callable[[], Dict[str, Any]]] = {}
    for name, dtype in dtypes.items():
        found[f"pruned, {name}"] = lambda dtype=dtype: compare(setup, "pruned", dtype)
    found["full, float32"] = lambda: compare(setup, "full", None)
    found["full, against torchaudio"] = lambda: torchaudio(setup)
    return found


class Measured(NamedTuple):
    """A loss, its gradients, the milliseconds of both passes, and their peak memory in MB."""

    value: float
    gradients: List[Tensor]
    ms: List[float]
    memory: float

    def apart(self, other: "Measured") -> float:
        """Return the largest difference of value and gradients, relative to the other's largest."""
        pairs = [(torch.tensor(self.value), torch.tensor(other.value))]
        pairs += list(zip(self.gradients, other.gradients))
        return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)) for a, b in pairs)


def _timed(losses: Losses, function: Callable[[], Tensor], dtype: Any) -> Measured:
    kept: Dict[str, Tensor] = {}

    def forward() -> None:
        with torch.autocast(losses.device, dtype=dtype, enabled=dtype is not None):
            kept["loss"] = function()

    def backward() -> None:
        kept.pop("loss").backward()
        for parameter in losses.parameters():
            parameter.grad = None

    forward()
    value = float(kept["loss"])
    inputs = losses.parameters()
    found = torch.autograd.grad(kept["loss"], inputs, allow_unused=True)
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found)]
    if losses.device == "cpu":
        return Measured(value, gradients, stage_times([forward, backward], losses.device), 0.0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    forward()
    backward()
    torch.cuda.synchronize()
    memory = (torch.cuda.max_memory_allocated() - before) / 1e6
    ms = stage_times([forward, backward], losses.device, seconds=1.0, most=20)
    return Measured(value, gradients, ms, memory)


def compare(setup: Setup, name: str, dtype: Any) -> Dict[str, Any]:
    """Time a loss with and without the kernels; values and gradients must agree."""
    losses = Losses(setup)
    with SameWindows() as windows:
        ours = _timed(losses, getattr(losses, name), dtype)
        try:
            with kernels_off():
                plain = _timed(losses, getattr(losses, name), dtype)
        except torch.cuda.OutOfMemoryError:
            return {**_row(losses, ours), "note": "the plain form runs out of memory"}
    row = _compared(losses, ours, plain, "plain", 1e-3 if dtype is None else 5e-2)
    row["windows apart"] = windows.apart()
    if not row["windows apart"] <= MOST_APART:
        return {"ok": False, **row, "note": "other windows are chosen"}
    return row


def _row(losses: Losses, ours: Measured) -> Dict[str, Any]:
    forward, backward = ours.ms
    return {"forward ms": forward, "backward ms": backward, "MB": ours.memory, "sizes": losses.sizes}


def _compared(losses: Losses, ours: Measured, other: Measured, name: str, tolerance: float) -> Dict[str, Any]:
    """Return a row about our loss beside another's; it is red if they differ."""
    row = _row(losses, ours)
    row.update({f"{name} forward ms": other.ms[0], f"{name} backward ms": other.ms[1]})
    row.update({f"{name} MB": other.memory, f"faster than {name} by": sum(other.ms) / sum(ours.ms)})
    row["apart"] = ours.apart(other)
    if not row["apart"] < tolerance:
        return {"ok": False, **row, "note": f"differs; {ours.value} is ours, {other.value} the other"}
    return row


def torchaudio(setup: Setup) -> Dict[str, Any]:
    """Time the full loss beside torchaudio's, where that has one."""
    try:
        from torchaudio import functional
    except (ImportError, OSError) as e:
        raise Skipped(f"torchaudio: {e}") from e
    if not hasattr(functional, "rnnt_loss"):
        raise Skipped("this torchaudio has no rnnt_loss")
    losses = Losses(setup)
    ours = _timed(losses, losses.full, None)
    theirs = _timed(losses, lambda: losses.all_logits("torchaudio"), None)
    return _compared(losses, ours, theirs, "torchaudio", 1e-3)
