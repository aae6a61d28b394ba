"""A streaming transducer as three traced files, for runtimes that know no TorchScript compiler: encoder, decoder, joiner."""

import copy
import warnings
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from torch import Tensor, nn

from asr_core.decoding.transducer.predictor import is_recurrent
from asr_core.export.torchscript import ScriptedModel, StreamingEncoder, open_torchscript, save_torchscript
from asr_core.nn.scaling import strip_training_modules
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike

FILES = {
    "encoder": "encoder_jit_trace.pt",
    "decoder": "decoder_jit_trace.pt",
    "joiner": "joiner_jit_trace.pt",
}


class _Joiner(nn.Module):
    """A joiner whose two ways of use are two methods: ``forward`` projects its inputs, ``joined`` takes them projected."""

    def __init__(self, joiner: nn.Module) -> None:
        super().__init__()
        self.joiner = joiner

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        return self.joiner(encoder_out, decoder_out)

    def joined(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        return self.joiner(encoder_out, decoder_out, project_input=False)


def trace_model(model: Any, feature_dim: int = 80) -> Dict[str, torch.jit.ScriptModule]:
    """The parts of a causal transducer, traced.

    Args:
      model: an AsrModel, left as it is, with one chunk size and one left context.
      feature_dim: features per frame.

    Returns:
      ``encoder``: (features (N, window, C), lengths (N,) int32, states) -> (output, lengths, states), with ``get_init_states``;
      ``decoder``: (tokens (N, context size), tensor([False])) -> (N, 1, decoder_dim); ``joiner``: outputs of both -> logits.

    Raises:
      UserError: it is no transducer, does not stream, or its prediction network has states.
    """
    if not model.use_transducer:
        raise UserError(
            "the model has no transducer, whose three parts are traced; export.py --jit 1 exports any model"
        )
    if is_recurrent(model.decoder):
        raise UserError(
            "an LSTM prediction network has states, which its traced file has no place for; export.py --jit 1 exports it"
        )
    model = strip_training_modules(copy.deepcopy(model).cpu())
    try:
        states = model.get_init_states(1)
    except ValueError as e:
        raise UserError(f"cannot export for streaming: {e}") from e
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    window, context = model.window_frames, int(model.decoder.context_size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore", torch.jit.TracerWarning
        )  # sizes and choices that are fixed by the options
        encoder = StreamingEncoder(model.encoder_embed, model.encoder).eval()
        inputs = (torch.rand(1, window, feature_dim), torch.tensor([window], dtype=torch.int32), states)
        dims = model.joiner.encoder_proj.in_features, model.joiner.decoder_proj.in_features
        joined = model.joiner.encoder_proj.out_features
        return {
            "encoder": torch.jit.trace(encoder, inputs),
            "decoder": torch.jit.trace(
                model.decoder, (torch.zeros(2, context, dtype=torch.int64), torch.tensor([False]))
            ),
            "joiner": torch.jit.trace_module(
                _Joiner(model.joiner).eval(),
                {
                    "forward": tuple(torch.rand(2, dim) for dim in dims),
                    "joined": (torch.rand(2, joined), torch.rand(2, joined)),
                },
            ),
        }


def export_traced(model: Any, exp_dir: PathLike, info: Dict[str, Any], tokens: Sequence[str]) -> List[Path]:
    """Trace a model and save its parts into ``exp_dir`` under their usual names, which are returned.

    Args:
      model: see :func:`trace_model`.
      exp_dir: the folder.
      info, tokens: what each part tells, see :func:`~asr_core.export.torchscript.save_torchscript`.
    """
    info = {
        **info,
        "chunk_size": str(model.encoder.chunk_size[0]),
        "left_context_frames": str(model.encoder.left_context_frames[0]),
    }
    paths = []
    for part, traced in trace_model(model, info["feature_dim"]).items():
        paths.append(Path(exp_dir) / FILES[part])
        save_torchscript(traced, paths[-1], info, tokens)
    return paths


class _LoadedDecoder(nn.Module):
    def __init__(self, traced: Any, info: Dict[str, Any]) -> None:
        super().__init__()
        self.traced = traced
        self.blank_id, self.context_size, self.vocab_size = (
            int(info[name]) for name in ("blank_id", "context_size", "vocab_size")
        )

    def forward(self, y: Tensor, need_pad: bool = False) -> Tensor:
        if need_pad:
            raise ValueError("a traced prediction network takes whole contexts alone")
        return self.traced(y, torch.tensor([False]))


class _LoadedJoiner(nn.Module):
    def __init__(self, traced: Any) -> None:
        super().__init__()
        self.traced = traced
        self.encoder_proj, self.decoder_proj = traced.joiner.encoder_proj, traced.joiner.decoder_proj

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        return (
            self.traced(encoder_out, decoder_out)
            if project_input
            else self.traced.joined(encoder_out, decoder_out)
        )


class _LoadedEncoder(nn.Module):
    def __init__(self, traced: Any, info: Dict[str, Any]) -> None:
        super().__init__()
        self.traced = traced
        self.chunk_size, self.left_context_len = int(info["chunk_size"]), int(info["left_context_frames"])

    def get_init_states(self, batch_size: int, device: torch.device) -> List[Tensor]:
        return self.traced.get_init_states(batch_size, device)

    def forward(self, features: Tensor, feature_lengths: Tensor, states: List[Tensor]) -> Any:
        return self.traced(features, feature_lengths.int(), states)


class _Parts(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module, joiner: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.joiner = encoder, decoder, joiner


def load_traced(encoder: PathLike, decoder: PathLike, joiner: PathLike, device: Any = "cpu") -> ScriptedModel:
    """The model whose three parts :func:`export_traced` wrote.

    Raises:
      UserError: a file is missing, damaged, none of these, or they are not of one model.
    """
    parts = {"encoder": encoder, "decoder": decoder, "joiner": joiner}
    opened = {}
    for part, path in parts.items():
        if not Path(path).is_file():
            raise UserError(f"no such model: {path}")
        opened[part] = open_torchscript(path, device)
    (first, info, pieces), *others = opened.values()
    for path, (_, other, _) in zip(list(parts.values())[1:], others):
        if other != info:
            raise UserError(f"{path} and {encoder} are not of one model: what is noted in them differs")
    try:
        module = _Parts(
            _LoadedEncoder(first, info),
            _LoadedDecoder(opened["decoder"][0], info),
            _LoadedJoiner(opened["joiner"][0]),
        )
    except (AttributeError, KeyError) as e:
        raise UserError(
            f"{', '.join(map(str, parts.values()))} are not, in this order, what jit_trace_export.py writes: {e}"
        ) from e
    return ScriptedModel(module, info, pieces)
