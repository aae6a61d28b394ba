"""Part: whole models and searches give on the GPU what their plain forms give on the CPU."""

import contextlib
import copy
import functools
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Tuple

import tiny_encoders
import torch
from made_up_resources import made_up_resources
from tiny import tiny_model
from torch import Tensor, nn

from asr_core.decoding.encoding import collate, encode_features
from asr_core.decoding.method import BEST, Job, Method, Results  # noqa: E402
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import METHODS
from asr_core.decoding.resources import Resource
from asr_core.models import ModelOptions, build_model
from asr_core.utils.options import from_params
from gpu_check.launches import counted, kernels_off
from gpu_check.setup import Setup
from gpu_check.windows import MOST_APART, SameWindows

# Resources that can be made up
_MADE_UP = frozenset(
    {Resource.NEURAL_LM, Resource.TOKEN_NGRAM, Resource.LODR_NGRAM, Resource.CONTEXT_GRAPH, Resource.LG}
)
_TOLERANCE = 1e-3  # of a whole model in float32, relative to the largest value
_TIE = 1e-3  # two answers whose scores are closer may come in either order


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return one item per encoder, per larger model and per decoding method."""
    found: Dict[str, Callable[[], Dict[str, Any]]] = {
        f"encoder and losses: {name}": functools.partial(encoder, setup, name) for name in tiny_encoders.TINY
    }
    for size in () if setup.small else ("tiny", "medium", "streaming"):
        found[f"encoder and losses: zipformer {size}"] = functools.partial(preset, setup, size)
    for dtype in ("bfloat16",) if setup.small else ("bfloat16", "float16"):
        found[f"encoder in {dtype}"] = functools.partial(half, setup, dtype)
    for method in METHODS.values():
        if method.needs <= _MADE_UP and not (method.attention_decoder or method.references):
            found[f"search: {method.name}"] = functools.partial(search, setup, method, method.needs)
            if method.optional:
                more = method.needs | method.optional & _MADE_UP
                found[f"search: {method.name}, all models"] = functools.partial(search, setup, method, more)
    return found


def encoder(setup: Setup, name: str) -> Dict[str, Any]:
    """Compare a tiny model of an encoder."""
    x, lens = collate([u[:40] if setup.small else u for u in tiny_encoders.utterances()])
    return _compare(setup, tiny_encoders.model_of(name), x, lens, [[3, 4, 5], [6], [7, 7]])


def preset(setup: Setup, size: str) -> Dict[str, Any]:
    """Compare a Zipformer of one of the usual sizes."""
    torch.manual_seed(0)
    model = build_model(from_params(ModelOptions, {"model_size": size}), 500)
    lens = [400, 397, 250]
    x, x_lens = collate([torch.randn(n, 80) * 3 - 6 for n in lens])
    return _compare(setup, model, x, x_lens, [[i + 1 for i in range(n // 20)] for n in lens])


def _compare(setup: Setup, model: nn.Module, x: Tensor, lens: Tensor, y: List[List[int]]) -> Dict[str, Any]:
    """Compare encoder output, losses and gradients in evaluation mode, where nothing is random."""
    # cuDNN has no backward pass of an LSTM in evaluation mode
    recurrent = any("lstm" in type(m).__name__.lower() for m in model.modules())
    reference, model = copy.deepcopy(model).eval(), model.to(setup.device).eval()
    with SameWindows() as windows:
        with counted() as launches, torch.backends.cudnn.flags(enabled=not recurrent, allow_tf32=False):
            got = _results(model, x.to(setup.device), lens.to(setup.device), y)
        with kernels_off():
            want = _results(reference, x, lens, y)
    errors = {name: _error(got[name], want[name]) for name in want}
    worst = max(errors, key=lambda name: errors[name])
    row = {"error": errors[worst], "of": worst, "launches": sum(launches.values())}
    row.update({"encoder's error": errors["encoder_out"], "windows apart": windows.apart()})
    if not row["windows apart"] <= MOST_APART:
        return {"ok": False, **row, "note": "other windows are chosen"}
    if not errors[worst] < _TOLERANCE:
        bad = sorted((n for n in errors if not errors[n] < _TOLERANCE), key=lambda n: -errors[n])[:5]
        return {"ok": False, **row, "note": f"differs: { ({n: f'{errors[n]:.1e}' for n in bad}) }"}
    return row


def _results(model: nn.Module, x: Tensor, lens: Tensor, y: List[List[int]]) -> Dict[str, Tensor]:
    with torch.no_grad():
        out, out_lens = model.forward_encoder(x, lens)
    losses = {k: v for k, v in model(x, lens, y)._asdict().items() if v is not None}
    sum(losses.values()).backward()
    found = {"encoder_out": out[0, : out_lens[0]], **{k: v.detach() for k, v in losses.items()}}
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    largest = max(float(g.abs().max()) for g in grads.values())
    # a gradient far below the others is what is left of sums that cancel
    return {
        **found,
        **{n: torch.cat([g.flatten(), g.new_tensor([0.01 * largest])]) for n, g in grads.items()},
    }


def _error(got: Tensor, want: Tensor) -> float:
    got, want = got.detach().cpu().double(), want.detach().cpu().double()
    difference = (got - want).abs().max()
    return (
        float(difference / want.abs().max().clamp(min=1e-12)) if torch.isfinite(difference) else float("inf")
    )


@contextlib.contextmanager
def _encoded(setup: Setup) -> Iterator[Tuple[nn.Module, Tensor, Tensor]]:
    """Return a lively model on the CPU, and encoder output that it computed there."""
    model = tiny_model(causal=False, use_ctc=True)
    generator = torch.Generator().manual_seed(5)
    count, longest = (4, 120) if setup.small else (24, 500)
    lens = torch.randint(40, longest, (count,), generator=generator).tolist()
    x, x_lens = collate([torch.randn(n, 80, generator=generator) * 3 - 8 for n in lens])
    with torch.no_grad(), kernels_off():
        out, out_lens = encode_features(model, x, x_lens)
    yield model, out, out_lens


def search(setup: Setup, method: Method, models: FrozenSet[Resource]) -> Dict[str, Any]:
    """Search the same encoder output on both, with the same language models and phrases; the
    answers are the same.
    """
    opts = SearchOptions(decoding_method=method.name, lodr_lm_scale=-0.2)
    with _encoded(setup) as (model, out, lens):

        def found(on: nn.Module, device: str) -> Results:
            resources = made_up_resources(models, model.vocab_size, device)
            where = {"encoder_out": out.to(device), "lens": lens.to(device)}
            return method.search(Job(model=on, opts=opts, resources=resources, **where))

        with kernels_off():
            want = found(model, "cpu")
        got = found(copy.deepcopy(model).to(setup.device), setup.device)
    pairs = [(a[0], b[0]) for name in want for a, b in zip(got[name], want[name])]
    assert pairs and (BEST not in want or len(got[BEST]) == len(lens))
    unequal = [(a, b) for a, b in pairs if a.tokens != b.tokens]
    wrong = [(a, b) for a, b in unequal if not abs(a.log_prob - b.log_prob) < _TIE]
    row = {
        "utterances": len(pairs),
        "tokens": sum(len(b.tokens) for _, b in pairs),
        "ties": len(unequal) - len(wrong),
        "scores apart": max(abs(a.log_prob - b.log_prob) for a, b in pairs),
        "times apart": sum(a.timestamps != b.timestamps for a, b in pairs if a.tokens == b.tokens),
    }
    if "nbest" in method.name:
        row["note"] = "draws random paths"
        return row
    if wrong or not row["tokens"]:
        return {"ok": False, **row, "note": f"{len(wrong)} answers differ: {wrong[:1]}"}
    return row


def half(setup: Setup, dtype: str) -> Dict[str, Any]:
    """Compare an encoder in half precision with itself in float32: with kernels it must not be much
    further away than in its plain form. How many transcripts are equal is for information.
    """
    model = tiny_model(causal=False).to(setup.device)
    generator = torch.Generator().manual_seed(0)
    count, frames = (2, 60) if setup.small else (16, 300)
    x, lens = collate([torch.randn(frames, 80, generator=generator) * 3 - 8 for _ in range(count)])
    x, lens = x.to(setup.device), lens.to(setup.device)

    def encoded(as_half: bool) -> Tensor:
        with torch.no_grad(), torch.autocast(setup.device, getattr(torch, dtype), enabled=as_half):
            return encode_features(model, x, lens)[0].float()

    with kernels_off():
        exact, plain = encoded(False), encoded(True)
    with counted() as launches:
        ours = encoded(True)
    found = {"error": ours, "plain error": plain}
    row: Dict[str, Any] = {k: float((v - exact).norm() / exact.norm()) for k, v in found.items()}
    row["launches"] = sum(launches.values())
    _, out_lens = encode_features(model, x, lens)
    answers = []
    for out in (exact, ours):
        job = Job(model=model, encoder_out=out, lens=out_lens, opts=SearchOptions())
        answers.append([hyps[0].tokens for hyps in METHODS["greedy_search"].search(job)[BEST]])
    row.update({"utterances": count, "equal": sum(a == b for a, b in zip(*answers))})
    if not row["error"] < 2 * row["plain error"] + 1e-3:
        return {"ok": False, **row, "note": "less exact than plain torch"}
    return row
