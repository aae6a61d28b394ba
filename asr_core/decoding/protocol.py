"""Interfaces of models to searches, which eager, scripted and traced models satisfy."""

from typing import Iterator, List, Protocol, Tuple, TypeVar

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.encoders.protocol import FrameGeometry


class Projection(Protocol):
    """A linear layer, or anything that maps the last dimension and has parameters."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., J)."""
        ...

    def parameters(self) -> Iterator[Tensor]:
        """Iterate over the weights, whose device and dtype a search uses."""
        ...


class Decoder(Protocol):
    """A predictor; ``context_size`` distinguishes the two kinds below."""

    @property
    def blank_id(self) -> int:
        """Id of the blank."""
        ...

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        ...


class StatelessDecoder(Decoder, Protocol):
    """A predictor that sees the last ``context_size`` tokens only."""

    @property
    def context_size(self) -> int:
        """Tokens that it sees."""
        ...

    def __call__(self, y: Tensor, need_pad: bool) -> Tensor:
        """Map token ids (N, U) to (N, U - context_size + 1, D); -1 stands for no token."""
        ...


class RecurrentDecoder(Decoder, Protocol):
    """A predictor that sees all tokens so far."""

    def get_init_states(self, batch_size: int) -> Tuple[Tensor, Tensor]:
        """Return the states h (N, L, D) and c (N, L, H) before the first token."""
        ...

    def step(self, y: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Return the output (N, D) after tokens (N,), and the next states."""
        ...


class TransducerJoiner(Protocol):
    """A joiner. It may have ``internal_lm``, see :class:`~asr_core.models.joiner.Joiner`."""

    @property
    def encoder_proj(self) -> Projection:
        """Projection of the encoder output."""
        ...

    @property
    def decoder_proj(self) -> Projection:
        """Projection of the predictor's output."""
        ...

    def __call__(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool) -> Tensor:
        """Map projected inputs (..., J) to logits (..., V)."""
        ...


class Transducer(Protocol):
    """A model with a transducer head."""

    @property
    def decoder(self) -> Decoder:
        """The predictor."""
        ...

    @property
    def joiner(self) -> TransducerJoiner:
        """The joiner."""
        ...


class CtcHead(Protocol):
    """The output layer of CTC."""

    def __call__(self, encoder_out: Tensor) -> Tensor:
        """Map encoder output (N, T, C) to log-probabilities (N, T, V)."""
        ...

    def parameters(self) -> Iterator[Tensor]:
        """Iterate over the weights, whose device a search uses."""
        ...


class CtcModel(Protocol):
    """A model with a CTC head."""

    @property
    def ctc_output(self) -> CtcHead:
        """The CTC head."""
        ...


class AttentionDecoderHead(Protocol):
    """An attention decoder that scores given tokens."""

    def nll(self, encoder_out: Tensor, lens: Tensor, tokens: List[List[int]]) -> Tensor:
        """Return the negative log-likelihoods (N, U) of ``tokens`` and their ends."""
        ...


class AttentionModel(Protocol):
    """A model with an attention decoder."""

    @property
    def attention_decoder(self) -> AttentionDecoderHead:
        """The attention decoder."""
        ...


class StreamingModel(Protocol):
    """A causal encoder with its front end, fed window by window."""

    @property
    def geometry(self) -> FrameGeometry:
        """The mapping from feature frames to frames of encoder output."""
        ...

    def get_init_states(self, batch_size: int, device: torch.device) -> List[Tensor]:
        """Return the states of ``batch_size`` new streams."""
        ...

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one window (N, T, F) of each stream.

        Returns the output (N, T', C), its lengths (N,) and the next states.
        """
        ...


class ModelWithHeads(Protocol):
    """A model that declares which heads it has."""

    @property
    def use_transducer(self) -> bool:
        """Whether there is a transducer head."""
        ...

    @property
    def use_ctc(self) -> bool:
        """Whether there is a CTC head."""
        ...

    @property
    def use_attention_decoder(self) -> bool:
        """Whether there is an attention decoder."""
        ...


class RecognitionModel(Transducer, CtcModel, AttentionModel, ModelWithHeads, Protocol):
    """A model as decoding methods get it; accessing a head that it lacks is an error."""

    @property
    def geometry(self) -> FrameGeometry:
        """The mapping from feature frames to frames of encoder output."""
        ...

    def forward_encoder(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Map features (N, T, F) and lengths (N,) to encoder output (N, T', C) and lengths."""
        ...


class SearchStream(Protocol):
    """The state of a search in one stream."""

    def hypothesis(self) -> Hypothesis:
        """Return the best hypothesis up to now."""
        ...


StreamT = TypeVar("StreamT", bound=SearchStream)


class StreamingSearch(Protocol[StreamT]):
    """A search over streams that arrive chunk by chunk; any streams may be advanced together."""

    def new_stream(self) -> StreamT:
        """Return the state of a new stream."""
        ...

    def advance(self, streams: List[StreamT], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``.

        Args:
          streams: N streams, changed in place.
          encoder_out: (N, T, C), not projected.
          encoder_out_lens: (N,) int64.
        """
        ...
