"""A streaming transducer as three traced files, for runtimes without TorchScript compiler."""

import warnings
from pathlib import Path
from typing import Dict, List, Sequence, Tuple, cast

import torch
from torch import Tensor, nn

from asr_core.decoding.transducer.predictor import is_recurrent
from asr_core.export.pretrained import ModelInfo
from asr_core.export.torchscript import (
    Device,
    ScriptedModel,
    StreamingEncoder,
    inference_copy,
    open_torchscript,
    save_torchscript,
)
from asr_core.models.asr_model import AsrModel
from asr_core.models.joiner import Joiner
from asr_core.predictors.stateless import StatelessPredictor
from asr_core.utils.errors import UserError
from asr_core.utils.lock import hold_output
from asr_core.utils.paths import PathLike

FILES = {
    "encoder": "encoder_jit_trace.pt",
    "decoder": "decoder_jit_trace.pt",
    "joiner": "joiner_jit_trace.pt",
}


class _Joiner(nn.Module):
    """A joiner whose ``forward`` projects its inputs, and whose ``joined`` takes them projected."""

    def __init__(self, joiner: Joiner) -> None:
        super().__init__()
        self.joiner = joiner

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        return self.joiner(encoder_out, decoder_out)

    def joined(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        return self.joiner(encoder_out, decoder_out, project_input=False)


def trace_model(model: AsrModel, feature_dim: int = 80) -> Dict[str, torch.jit.ScriptModule]:
    """Trace the parts of a causal transducer.

    Args:
      model: model, left as it is, with one chunk size and one left context.
      feature_dim: features F per frame.

    Returns:
      ``encoder``: (features (N, T, F), lengths (N,) int32, states) to (output, lengths, states),
      with
        ``get_init_states``.
      ``decoder``: (tokens (N, context size), tensor([False])) to (N, 1, decoder_dim).
      ``joiner``: outputs of both to logits.

    Raises:
      UserError: it is not a transducer, does not stream, or its prediction network has states.
    """
    if not model.use_transducer:
        raise UserError(
            "the model has no transducer, whose three parts are traced; export.py --jit 1 exports any model"
        )
    if is_recurrent(model.decoder):
        raise UserError(
            "an LSTM prediction network has states, which a traced file cannot hold; export.py "
            "--jit 1 exports it"
        )
    model = inference_copy(model, streaming=True)
    decoder = cast(StatelessPredictor, model.decoder)
    window, states = model.window_frames, model.get_init_states(1)
    features = torch.rand(1, window, feature_dim)
    contexts = torch.zeros(2, decoder.context_size, dtype=torch.int64)
    enc, dec = model.joiner.encoder_proj, model.joiner.decoder_proj
    with warnings.catch_warnings(), torch.no_grad():
        # the tracer warns of sizes and choices that it fixes, which the options fix anyway
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return {
            "encoder": torch.jit.trace(
                StreamingEncoder(model).eval(),
                (features, torch.tensor([window], dtype=torch.int32), states),
            ),
            "decoder": torch.jit.trace(decoder, (contexts, torch.tensor([False]))),
            "joiner": torch.jit.trace_module(
                _Joiner(model.joiner).eval(),
                {
                    "forward": (torch.rand(2, enc.in_features), torch.rand(2, dec.in_features)),
                    "joined": (torch.rand(2, enc.out_features), torch.rand(2, enc.out_features)),
                },
            ),
        }


def export_traced(model: AsrModel, exp_dir: PathLike, info: ModelInfo, tokens: Sequence[str]) -> List[Path]:
    """Trace a model, save its parts into ``exp_dir`` under their usual names, and return the paths.

    Args:
      model: see :func:`trace_model`.
      exp_dir: folder.
      info, tokens: description and tokens that each part holds, see
        :func:`~asr_core.export.torchscript.save_torchscript`.
    """
    info = info.copy()
    info["chunk_size"] = str(model.encoder.chunk_size[0])
    info["left_context_frames"] = str(model.encoder.left_context_frames[0])
    paths = {part: Path(exp_dir) / name for part, name in FILES.items()}
    first = next(iter(paths.values()))
    with hold_output(first, "export", "wait for its end"):  # or parts of two models would be mixed
        for part, traced in trace_model(model, info["feature_dim"]).items():
            save_torchscript(traced, paths[part], info, tokens)
    return list(paths.values())


class _LoadedDecoder(nn.Module):
    """A traced prediction network with the interface of a stateless predictor."""

    def __init__(self, traced: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.traced = traced
        self.blank_id = int(info["blank_id"])
        self.context_size = int(info["context_size"])
        self.vocab_size = int(info["vocab_size"])

    def forward(self, y: Tensor, need_pad: bool = False) -> Tensor:
        if need_pad:
            raise ValueError("a traced prediction network takes only whole contexts")
        return self.traced(y, torch.tensor([False]))


class _LoadedJoiner(nn.Module):
    """A traced joiner with the interface of :class:`~asr_core.models.joiner.Joiner`."""

    def __init__(self, traced: nn.Module) -> None:
        super().__init__()
        self.traced = cast(_Joiner, traced)
        self.encoder_proj = self.traced.joiner.encoder_proj
        self.decoder_proj = self.traced.joiner.decoder_proj

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        if project_input:
            return self.traced(encoder_out, decoder_out)
        return self.traced.joined(encoder_out, decoder_out)


class _LoadedEncoder(nn.Module):
    """A traced encoder with the interface of :class:`StreamingEncoder`."""

    def __init__(self, traced: nn.Module, info: ModelInfo) -> None:
        super().__init__()
        self.traced = cast(StreamingEncoder, traced)
        self.chunk_size, self.left_context_len = int(info["chunk_size"]), int(info["left_context_frames"])

    def get_init_states(self, batch_size: int, device: torch.device) -> List[Tensor]:
        return self.traced.get_init_states(batch_size, device)

    def forward(
        self, features: Tensor, feature_lengths: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        return self.traced(features, feature_lengths.int(), states)


class _Parts(nn.Module):
    """The parts under the names that a scripted model has."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, joiner: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.joiner = encoder, decoder, joiner


def load_traced(
    encoder: PathLike, decoder: PathLike, joiner: PathLike, device: Device = "cpu", trust: bool = False
) -> ScriptedModel:
    """Load the model whose three parts :func:`export_traced` wrote.

    Args:
      encoder, decoder, joiner: files.
      device, trust: see :func:`~asr_core.export.torchscript.open_torchscript`.

    Raises:
      UserError: a file is missing, damaged or another kind, could do more than compute, or they are
        not of one model.
    """
    parts = {"encoder": encoder, "decoder": decoder, "joiner": joiner}
    opened = {}
    for part, path in parts.items():
        if not Path(path).is_file():
            raise UserError(f"no such model: {path}")
        opened[part] = open_torchscript(path, device, trust)
    (first, info, pieces), *others = opened.values()
    for path, (_, other, other_pieces) in zip(list(parts.values())[1:], others):
        if other != info or other_pieces != pieces:
            raise UserError(f"{path} and {encoder} are not of one model: their descriptions differ")
    try:
        module = _Parts(
            _LoadedEncoder(first, info),
            _LoadedDecoder(opened["decoder"][0], info),
            _LoadedJoiner(opened["joiner"][0]),
        )
    except (AttributeError, KeyError) as e:
        raise UserError(
            f"{', '.join(map(str, parts.values()))} are not, in this order, the files of"
            f" jit_trace_export.py: {e}"
        ) from e
    return ScriptedModel(module, info, pieces)
