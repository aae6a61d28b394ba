"""TorchScript files, which hold a model, its tokens and its description."""

import copy
import io
import json
import zipfile
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple, Union, cast

import torch
from torch import Tensor, nn

from asr_core.decoding.protocol import AttentionDecoderHead, CtcHead, Decoder, TransducerJoiner
from asr_core.encoders.protocol import FrameGeometry, StreamingFrontEnd
from asr_core.encoders.protocol import StreamingEncoder as ChunkwiseEncoder
from asr_core.export.pretrained import ModelInfo
from asr_core.export.script_check import check_torchscript
from asr_core.models.asr_model import AsrModel
from asr_core.models.averaging import first_not_finite
from asr_core.nn.scaling import strip_training_modules
from asr_core.text.pieces import KEY
from asr_core.text.tokenizer import format_tokens, parse_tokens
from asr_core.utils.archives import check_archive
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path
from asr_core.utils.paths import PathLike

Device = Union[str, torch.device]
_INFO, _TOKENS = "asr_core.json", "tokens.txt"  # extra files in the archive


class OfflineEncoder(nn.Module):
    """Front end and encoder of whole utterances.

    Args:
      model: model whose front end and encoder they are.
    """

    def __init__(self, model: AsrModel) -> None:
        super().__init__()
        self.encoder_embed = model.encoder_embed
        self.encoder = model.encoder

    def forward(self, features: Tensor, feature_lengths: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
          features: (N, T, F).
          feature_lengths: (N,) valid frames.

        Returns:
          encoder_out (N, T', C) and its lengths (N,).
        """
        x, x_lens = self.encoder_embed(features, feature_lengths)
        return self.encoder(x, x_lens)


class StreamingEncoder(nn.Module):
    """Front end and encoder of one chunk at a time.

    Attributes:
      chunk_size, left_context_len: in 50 Hz frames.
      pad_length: feature frames that a window has beyond the ``2 * chunk_size`` that it advances.

    Args:
      model: causal model whose chunk size and left context are single values.
    """

    def __init__(self, model: AsrModel) -> None:
        super().__init__()
        self.encoder_embed = cast(StreamingFrontEnd, model.encoder_embed)
        self.encoder = cast(ChunkwiseEncoder, model.encoder)
        self.chunk_size = int(model.encoder.chunk_size[0])
        self.left_context_len = int(model.encoder.left_context_frames[0])
        self.pad_length = int(model.encoder_embed.look_ahead)

    def forward(
        self, features: Tensor, feature_lengths: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one window of each stream.

        Args:
          features: (N, 2 * chunk_size + pad_length, F).
          feature_lengths: (N,) valid frames.
          states: from :meth:`get_init_states` or the previous call.

        Returns:
          encoder_out (N, T', C), its lengths (N,), and the next states.
        """
        x, x_lens, embed_state = self.encoder_embed.streaming_forward(features, feature_lengths, states[-2])
        encoder_states = states[:-2] + [states[-1]]
        encoder_out, encoder_out_lens, new_states = self.encoder.streaming_forward(x, x_lens, encoder_states)
        return encoder_out, encoder_out_lens, new_states[:-1] + [embed_state, new_states[-1]]

    @torch.jit.export
    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` new streams.

        They are the encoder's, the front end's left context, and the count of processed frames
        (N,).
        """
        states = self.encoder.get_init_states(batch_size, device)
        embed_state = self.encoder_embed.get_init_states(batch_size, device)
        return states[:-1] + [embed_state, states[-1]]


class _Exported(nn.Module):
    """The modules that users of the file find: encoder_embed, encoder, and the model's heads."""

    def __init__(self, model: AsrModel, encoder: nn.Module) -> None:
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


def inference_copy(model: AsrModel, streaming: bool) -> AsrModel:
    """Return a copy of a model on the CPU, without gradients and modules that only training uses.

    Args:
      model: model, left as it is.
      streaming: check that the copy can stream.

    Raises:
      UserError: the model is not causal, or has not one chunk size and one left context.
    """
    copied = cast(AsrModel, strip_training_modules(copy.deepcopy(model).cpu())).eval()
    if streaming:
        copied.get_init_states(1)
    return copied.requires_grad_(False)


def script_model(model: AsrModel, streaming: bool) -> torch.jit.ScriptModule:
    """Compile a model to TorchScript.

    Args:
      model: model, left as it is. For streaming it must be causal with one chunk size and left
        context.
      streaming: encode chunk by chunk, else whole utterances with unlimited context.

    Raises:
      UserError: the chunk size or left context cannot stream.
    """
    model = inference_copy(model, streaming)
    encoder = StreamingEncoder(model) if streaming else OfflineEncoder(model)
    return torch.jit.script(_Exported(model, encoder).eval())


def script_file_name(chunk_size: int, left_context_frames: int, streaming: bool) -> str:
    """Return ``jit_script.pt``, or ``jit_script_chunk_C_left_L.pt`` for streaming."""
    return f"jit_script_chunk_{chunk_size}_left_{left_context_frames}.pt" if streaming else "jit_script.pt"


def save_torchscript(
    scripted: torch.jit.ScriptModule, path: PathLike, info: ModelInfo, tokens: Sequence[str]
) -> None:
    """Save a scripted model with its description and tokens, atomically.

    Args:
      scripted: result of :func:`script_model`.
      path: file.
      info: description of the model.
      tokens: tokens in order of their ids.
    """
    described = {name: value for name, value in info.items() if name != KEY}  # they are in tokens.txt
    extra = {_INFO: json.dumps(described), _TOKENS: format_tokens(tokens)}
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer, _extra_files=extra)
    with atomic_path(path) as tmp:
        tmp.write_bytes(buffer.getvalue())


def is_torchscript(path: PathLike) -> bool:
    """Return whether the file is a TorchScript archive (and not a checkpoint)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


class _OfflineModule(Protocol):
    """The loaded form of :class:`OfflineEncoder`."""

    def __call__(self, features: Tensor, feature_lengths: Tensor) -> Tuple[Tensor, Tensor]: ...


class _StreamingModule(Protocol):
    """The loaded form of :class:`StreamingEncoder`."""

    chunk_size: int
    left_context_len: int

    def get_init_states(self, batch_size: int, device: torch.device) -> List[Tensor]: ...

    def __call__(
        self, features: Tensor, feature_lengths: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]: ...


class ScriptedModel:
    """A TorchScript file with the inference side of an AsrModel.

    Attributes:
      decoder, joiner: parts of the transducer; None without one.
      ctc_output: CTC head, encoder output (N, T, C) to log-probabilities (N, T, V); None without
        one.
      attention_decoder: has ``nll`` as
        :class:`~asr_core.models.attention_decoder.AttentionDecoder`; None without one.
      use_transducer, use_ctc, use_attention_decoder: which heads there are.
      vocab_size: number V of tokens, blank included.
      streaming: whether it encodes chunk by chunk.
      chunk_size, left_context_frames: values of a streaming model, in 50 Hz frames, else -1.
      geometry: mapping from feature frames to frames of encoder output; a Zipformer's for files
        without it.
      info: description of the model; empty for files of other exporters.
      pieces: tokens by id, or None if the file holds none.

    Args:
      module: loaded archive.
      info: its description.
      pieces: its tokens.
    """

    def __init__(self, module: nn.Module, info: ModelInfo, pieces: Optional[List[str]]) -> None:
        self._offline = cast(_OfflineModule, module.encoder)
        self._streaming = cast(_StreamingModule, module.encoder)
        self.decoder = cast(Decoder, getattr(module, "decoder", None))
        self.joiner = cast(TransducerJoiner, getattr(module, "joiner", None))
        self.ctc_output = cast(CtcHead, getattr(module, "ctc_output", None))
        self.attention_decoder = cast(AttentionDecoderHead, getattr(module, "attention_decoder", None))
        self.use_transducer = self.decoder is not None and self.joiner is not None
        self.use_ctc = self.ctc_output is not None
        self.use_attention_decoder = self.attention_decoder is not None
        self.vocab_size = (
            int(self.decoder.vocab_size)
            if self.use_transducer
            else module.state_dict()["ctc_output.1.weight"].size(0)
        )
        self.streaming = hasattr(module.encoder, "get_init_states")
        self.chunk_size = int(self._streaming.chunk_size) if self.streaming else -1
        self.left_context_frames = int(self._streaming.left_context_len) if self.streaming else -1
        self.geometry = FrameGeometry(*info.get("geometry", ()))
        self.info = info
        self.pieces = pieces

    def forward_encoder(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode utterances x (N, T, F) as :meth:`AsrModel.forward_encoder`, in full context."""
        # TorchScript would optimise for each new batch size, which costs more time than it saves
        with torch.jit.optimized_execution(False):
            return self._offline(x, x_lens)

    def get_init_states(self, batch_size: int = 1, device: Device = "cpu") -> List[Tensor]:
        """Return the states of ``batch_size`` new streams."""
        return self._streaming.get_init_states(batch_size, torch.device(device))

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode windows x (N, T, F) of streams as :meth:`AsrModel.streaming_forward` does."""
        with torch.jit.optimized_execution(False):
            return self._streaming(x, x_lens, states)


def load_torchscript(path: PathLike, device: Device = "cpu", trust: bool = False) -> ScriptedModel:
    """Load a file of :func:`save_torchscript`, or another exporter's of the same layout.

    Args:
      path, device, trust: see :func:`open_torchscript`.

    Raises:
      UserError: the file is damaged, could do more than compute, or has another layout.
    """
    module, info, pieces = open_torchscript(path, device, trust)
    heads = hasattr(module, "ctc_output") or (hasattr(module, "decoder") and hasattr(module, "joiner"))
    if not (hasattr(module, "encoder") and heads):
        raise UserError(
            f"{path} is TorchScript without an encoder and a transducer or CTC head: not an exported model"
        )
    return ScriptedModel(module, info, pieces)


class TorchScriptFile(NamedTuple):
    """The content of a file of :func:`save_torchscript`.

    Attributes:
      module: module, in evaluation mode.
      info: description of the model.
      pieces: tokens by id, or None if the file holds none.
    """

    module: nn.Module
    info: ModelInfo
    pieces: Optional[List[str]]


def open_torchscript(path: PathLike, device: Device = "cpu", trust: bool = False) -> TorchScriptFile:
    """Read a file of :func:`save_torchscript`.

    Args:
      path: file.
      device: device to load it onto.
      trust: load it whatever its code may do; see :mod:`asr_core.export.script_check`.

    Raises:
      UserError: the file is damaged, or could do more than compute.
    """
    extra: Dict[str, Union[str, bytes]] = {_INFO: "", _TOKENS: ""}
    check_archive(path, required=True)
    if not trust:
        check_torchscript(path)
    try:
        module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    except (RuntimeError, OSError, ValueError) as e:
        raise UserError(f"{path} is damaged or no TorchScript file: {str(e).strip().splitlines()[0]}") from e
    name = first_not_finite(module.state_dict())
    if name:
        raise UserError(f"{path}: the weights are not finite ({name}): export another checkpoint")
    module.eval()
    info, tokens = _text(extra[_INFO]), _text(extra[_TOKENS])
    pieces = list(parse_tokens(tokens, f"{path}, {_TOKENS}")) if tokens else None
    return TorchScriptFile(module, json.loads(info) if info else ModelInfo(), pieces)


def _text(value: Union[str, bytes]) -> str:
    """Return the text of an extra file, which some versions of torch return as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def export_torchscript(
    model: AsrModel,
    exp_dir: PathLike,
    info: ModelInfo,
    tokens: Sequence[str],
    streaming: bool,
    name: str = "",
) -> Path:
    """Script a model and save it into ``exp_dir``; return the path.

    Args:
      model: model, left as it is.
      exp_dir: folder.
      info, tokens: see :func:`save_torchscript`.
      streaming: see :func:`script_model`.
      name: name of the file; by default that of :func:`script_file_name`.
    """
    chunk = (model.encoder.chunk_size[0], model.encoder.left_context_frames[0]) if streaming else (-1, -1)
    path = Path(exp_dir) / (name or script_file_name(chunk[0], chunk[1], streaming))
    save_torchscript(script_model(model, streaming), path, info, tokens)
    return path
