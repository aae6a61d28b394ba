"""TorchScript files: one file that holds the model, its tokens and what else transcribing needs."""

import copy
import io
import json
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.protocol import FrameGeometry
from asr_core.nn.scaling import strip_training_modules
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike, atomic_path

_INFO, _TOKENS = "asr_core.json", "tokens.txt"  # the extra files inside


class OfflineEncoder(nn.Module):
    """Front end and encoder of whole utterances.

    Args:
      encoder_embed, encoder: as in an AsrModel.
    """

    def __init__(self, encoder_embed: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder_embed = encoder_embed
        self.encoder = encoder

    def forward(self, features: Tensor, feature_lengths: Tensor) -> Tuple[Tensor, Tensor]:
        """features (N, T, C), feature_lengths (N,) -> encoder_out (N, T', D), its lengths (N,)."""
        x, x_lens = self.encoder_embed(features, feature_lengths)
        return self.encoder(x, x_lens)


class StreamingEncoder(nn.Module):
    """Front end and encoder of one chunk at a time.

    Attributes:
      chunk_size, left_context_len: in 50-Hz frames.
      pad_length: feature frames that a window has beyond the ``2 * chunk_size`` it advances.

    Args:
      encoder_embed, encoder: as in a causal AsrModel whose chunk size and left context are single values.
    """

    def __init__(self, encoder_embed: nn.Module, encoder: Any) -> None:
        super().__init__()
        self.encoder_embed = encoder_embed
        self.encoder = encoder
        self.chunk_size = int(encoder.chunk_size[0])
        self.left_context_len = int(encoder.left_context_frames[0])
        self.pad_length = int(encoder_embed.look_ahead)

    def forward(
        self, features: Tensor, feature_lengths: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one window of each stream.

        Args:
          features: (N, 2 * chunk_size + pad_length, C).
          feature_lengths: (N,).
          states: of :meth:`get_init_states` or the call before.

        Returns:
          encoder_out (N, frames, D), its lengths (N,), the next states.
        """
        x, x_lens, embed_state = self.encoder_embed.streaming_forward(features, feature_lengths, states[-2])
        encoder_states = states[:-2] + [states[-1]]
        encoder_out, encoder_out_lens, new_states = self.encoder.streaming_forward(x, x_lens, encoder_states)
        return encoder_out, encoder_out_lens, new_states[:-1] + [embed_state, new_states[-1]]

    @torch.jit.export
    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """States of streams that have not begun: the encoder's, the front end's left context, frames processed."""
        states = self.encoder.get_init_states(batch_size, device)
        embed_state = self.encoder_embed.get_init_states(batch_size, device)
        return states[:-1] + [embed_state, states[-1]]


class _Exported(nn.Module):
    """The children that users of the file find: encoder_embed, encoder, and what there is of the heads."""

    def __init__(self, model: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder_embed = model.encoder_embed
        self.encoder = encoder
        for name in (
            "decoder",
            "joiner",
            "simple_am_proj",
            "simple_lm_proj",
            "ctc_output",
            "attention_decoder",
        ):
            child = getattr(model, name, None)
            if child is not None:
                setattr(self, name, child)


def script_model(model: Any, streaming: bool) -> torch.jit.ScriptModule:
    """An AsrModel as TorchScript.

    Args:
      model: left as it is. For streaming it must be causal with one chunk size and one left context.
      streaming: chunk by chunk, else whole utterances with unlimited context.

    Raises:
      UserError: the chunk size or left context cannot stream.
    """
    model = strip_training_modules(copy.deepcopy(model).cpu())
    if streaming:
        try:
            model.get_init_states(1)
        except ValueError as e:
            raise UserError(f"cannot export for streaming: {e}") from e
    wrapper = StreamingEncoder if streaming else OfflineEncoder
    exported = _Exported(model, wrapper(model.encoder_embed, model.encoder)).eval()
    for parameter in exported.parameters():
        parameter.requires_grad_(False)
    return torch.jit.script(exported)


def script_file_name(chunk_size: int, left_context_frames: int, streaming: bool) -> str:
    """``jit_script.pt``, or ``jit_script_chunk_C_left_L.pt`` for streaming."""
    return f"jit_script_chunk_{chunk_size}_left_{left_context_frames}.pt" if streaming else "jit_script.pt"


def save_torchscript(
    scripted: torch.jit.ScriptModule, path: PathLike, info: Dict[str, Any], tokens: Sequence[str]
) -> None:
    """Save a scripted model with what transcribing needs.

    Args:
      scripted: of :func:`script_model`.
      path: the file.
      info: ``sample_rate``, ``feature_dim``, ``blank_id``, ``causal``, ... as JSON values.
      tokens: the tokens in order of their ids.
    """
    text = "".join(f"{token} {i}\n" for i, token in enumerate(tokens))
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer, _extra_files={_INFO: json.dumps(info), _TOKENS: text})
    with atomic_path(path) as tmp:
        tmp.write_bytes(buffer.getvalue())


def is_torchscript(path: PathLike) -> bool:
    """Whether the file is a TorchScript archive (and not a checkpoint)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


class ScriptedModel:
    """A TorchScript file with the inference side of an AsrModel.

    Attributes:
      decoder, joiner: for searches; None without transducer.
      ctc_output: encoder output (N, T, C) -> log-probabilities (N, T, V); None without CTC head.
      attention_decoder: has ``nll`` as :class:`~asr_core.models.attention_decoder.AttentionDecoder`; None without one.
      use_transducer, use_ctc, use_attention_decoder: which of them there are.
      vocab_size: number of tokens, blank included.
      streaming: whether it encodes chunk by chunk.
      chunk_size, left_context_frames: of a streaming model, in 50-Hz frames, else -1.
      geometry: how feature frames become frames of encoder output; a Zipformer's for files that do not say.
      info: what the exporter noted: ``sample_rate``, ``feature_dim``, ``causal``, ...; empty for files of other exporters.
      pieces: the tokens by id, or None if the file holds none.

    Args:
      module: the loaded archive.
      info: its notes.
      pieces: its tokens.
    """

    def __init__(self, module: Any, info: Dict[str, Any], pieces: Optional[List[str]]) -> None:
        self._encoder = module.encoder
        self.decoder = getattr(module, "decoder", None)
        self.joiner = getattr(module, "joiner", None)
        self.ctc_output = getattr(module, "ctc_output", None)
        self.attention_decoder = getattr(module, "attention_decoder", None)
        self.use_transducer = self.decoder is not None and self.joiner is not None
        self.use_ctc = self.ctc_output is not None
        self.use_attention_decoder = self.attention_decoder is not None
        self.vocab_size = (
            int(self.decoder.vocab_size)
            if self.use_transducer
            else module.state_dict()["ctc_output.1.weight"].size(0)
        )
        self.streaming = hasattr(module.encoder, "get_init_states")
        self.chunk_size = int(module.encoder.chunk_size) if self.streaming else -1
        self.left_context_frames = int(module.encoder.left_context_len) if self.streaming else -1
        self.geometry = FrameGeometry(*info.get("geometry", ()))
        self.info = info
        self.pieces = pieces

    def forward_encoder(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """As :meth:`AsrModel.forward_encoder`, with unlimited context."""
        with torch.jit.optimized_execution(
            False
        ):  # it would spend more on compiling for each new batch size than it saves
            return self._encoder(x, x_lens)

    def get_init_states(self, batch_size: int = 1, device: Any = "cpu") -> List[Tensor]:
        """States of streams that have not begun."""
        return self._encoder.get_init_states(batch_size, torch.device(device))

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """As :meth:`AsrModel.streaming_forward`."""
        with torch.jit.optimized_execution(False):
            return self._encoder(x, x_lens, states)


def load_torchscript(path: PathLike, device: Any = "cpu") -> ScriptedModel:
    """Load a file of :func:`save_torchscript`, or another exporter's of the same layout.

    Raises:
      UserError: the file is damaged, or its layout is another.
    """
    module, info, pieces = open_torchscript(path, device)
    heads = hasattr(module, "ctc_output") or (hasattr(module, "decoder") and hasattr(module, "joiner"))
    if not (hasattr(module, "encoder") and heads):
        raise UserError(
            f"{path} is TorchScript, but has not an encoder and a transducer or CTC head: not an exported model"
        )
    return ScriptedModel(module, info, pieces)


def open_torchscript(path: PathLike, device: Any = "cpu") -> Tuple[Any, Dict[str, Any], Optional[List[str]]]:
    """What a file of :func:`save_torchscript` holds: the module, ``info``, and the tokens, if any.

    Raises:
      UserError: the file is damaged.
    """
    extra: Dict[str, Any] = {_INFO: "", _TOKENS: ""}
    try:
        module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    except (RuntimeError, OSError, ValueError) as e:
        raise UserError(f"{path} is damaged or no TorchScript file: {str(e).strip().splitlines()[0]}") from e
    module.eval()
    info, tokens = _text(extra[_INFO]), _text(extra[_TOKENS])
    pieces = [line.rsplit(maxsplit=1)[0] for line in tokens.splitlines()] if tokens else None
    return module, json.loads(info) if info else {}, pieces


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def export_torchscript(
    model: Any,
    exp_dir: PathLike,
    info: Dict[str, Any],
    tokens: Sequence[str],
    streaming: bool,
    name: str = "",
) -> Path:
    """Script a model and save it into ``exp_dir`` under ``name``, or its usual one; returns the path."""
    chunk = (model.encoder.chunk_size[0], model.encoder.left_context_frames[0]) if streaming else (-1, -1)
    path = Path(exp_dir) / (name or script_file_name(*chunk, streaming))
    save_torchscript(script_model(model, streaming), path, info, tokens)
    return path
