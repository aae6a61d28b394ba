"""Options of transcribing; light, so that ``--help`` needs no torch."""

from dataclasses import dataclass
from typing import Optional

from asr_core.data.options import FEATURE_TYPES, channel_option, device_features_option
from asr_core.decoding.options import (
    ChunkwiseFastBeamLimits,
    DeviceOptions,
    DistributionOptions,
    max_segment_option,
)
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass(frozen=True)
class TranscribeOptions(DeviceOptions, ChunkwiseFastBeamLimits, DistributionOptions):
    """Transcription: model, search and output."""

    model: str = option(
        "",
        "the model's file; its kind is recognised",
        aliases=("--checkpoint", "--nn-model-filename"),
        path=PathKind.FILE,
    )
    tokens: str = option(
        "",
        "tokens.txt or bpe.model; left out: what the model's file holds, else the one next to it",
        aliases=("--bpe-model",),
        path=PathKind.EITHER,
    )
    use_ema: Optional[bool] = option(
        None,
        "the exponential average that a training checkpoint holds (--ema-decay), instead of its weights; "
        "left out: if training validated with it",
    )
    trust_model: bool = option(
        False,
        "load a TorchScript file whose code may do more than compute, such as write files; "
        "only if you trust whoever made it",
    )
    method: str = option(
        "greedy_search",
        "greedy_search, modified_beam_search or fast_beam_search",
        aliases=("--decoding-method",),
    )
    beam_size: int = option(4, "hypotheses kept by beam searches", at_least=1, at_most=10_000)
    max_states: int = option(8, "states that fast_beam_search keeps per frame", at_least=1, at_most=1_000_000)
    max_sym_per_frame: int = option(
        1, "tokens that greedy search may emit at one frame", at_least=1, at_most=1000
    )
    sample_rate: int = option(
        16000,
        "sampling rate of the model, if its file does not record it; other audio is resampled",
        at_least=1000,
        at_most=1_000_000,
    )
    feature_type: str = option(
        "fbank",
        "kind of features of the model, if its file does not record it",
        choices=FEATURE_TYPES,
    )
    channel: str = channel_option()
    features_on_device: bool = device_features_option("otherwise on the CPU")
    json: bool = option(False, "print a JSON object for each file")
    timestamps: bool = option(False, "print each word with its start and end in seconds")
    confidence: bool = option(
        False, "print each word's confidence; a probability if confidence.json is next to the model"
    )
    max_duration: float = option(120.0, "seconds of audio in a batch", above=0)
    max_segment: float = max_segment_option(30.0)


@dataclass(frozen=True)
class TracedModelOptions:
    """Model: its three files."""

    encoder_model_filename: str = option("", "encoder_jit_trace.pt; needed", path=PathKind.FILE)
    decoder_model_filename: str = option("", "decoder_jit_trace.pt; needed", path=PathKind.FILE)
    joiner_model_filename: str = option("", "joiner_jit_trace.pt; needed", path=PathKind.FILE)
    decode_chunk_len: int = option(
        32,
        "feature frames of a chunk; left out: those of the export; other numbers are refused",
        at_least=2,
        at_most=100_000,
    )
