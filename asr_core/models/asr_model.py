"""The speech-recognition model: an encoder with transducer, CTC head and attention decoder."""

from typing import Dict, List, NamedTuple, Optional, Tuple, cast

import torch
from torch import Tensor, nn

from asr_core.encoders.protocol import (
    Encoder,
    FrameGeometry,
    FrontEnd,
    LayeredEncoder,
    StreamingEncoder,
    StreamingFrontEnd,
)
from asr_core.models.attention_decoder import AttentionDecoder
from asr_core.models.intermediate_ctc import IntermediateCtc
from asr_core.models.joiner import Joiner
from asr_core.models.transducer_loss import (
    LatticeInputs,
    Smoothing,
    full_loss,
    prepare_lattice,
    pruned_losses,
)
from asr_core.nn.scaling import ScaledLinear
from asr_core.ops.consistency import consistency_loss
from asr_core.ops.ctc_loss import ctc_loss
from asr_core.ops.host import sent
from asr_core.predictors.protocol import Predictor


class Losses(NamedTuple):
    """Losses of a batch: scalars, or (N,) with ``reduction="none"``.

    A loss is None where the model has no such head. A transducer has ``simple_loss`` and
    ``pruned_loss``, or ``rnnt_loss``. ``cr_loss`` is None unless the batch holds two views of each
    utterance.
    """

    simple_loss: Optional[Tensor]
    pruned_loss: Optional[Tensor]
    ctc_loss: Optional[Tensor]
    attention_decoder_loss: Optional[Tensor] = None
    cr_loss: Optional[Tensor] = None
    intermediate_ctc_loss: Optional[Tensor] = None
    rnnt_loss: Optional[Tensor] = None


class AsrModel(nn.Module):
    """Encoder with a transducer, a CTC head, or both, and optionally an attention decoder.

    Args:
      encoder_embed: front end, features (N, T, F) to frames (N, T', C); see
        :mod:`asr_core.encoders.protocol`.
      encoder: encoder, frames to encoder output (N, T'', encoder_dim).
      decoder: prediction network, tokens (N, U) to (N, U, decoder_dim); None without a transducer.
      joiner: joiner; None without a transducer.
      encoder_dim, decoder_dim: widths of the encoder's and the prediction network's output.
      vocab_size: number of tokens, blank included.
      use_transducer, use_ctc: which heads exist; at least one.
      attention_decoder: attention decoder, if there is one.
      intermediate_ctc: CTC heads on inner outputs of the encoder, if there are any.
      loss: loss of the transducer, "pruned" (with the simple loss' projections) or "full".
    """

    def __init__(
        self,
        encoder_embed: FrontEnd,
        encoder: Encoder,
        decoder: Optional[Predictor] = None,
        joiner: Optional[Joiner] = None,
        encoder_dim: int = 384,
        decoder_dim: int = 512,
        vocab_size: int = 500,
        use_transducer: bool = True,
        use_ctc: bool = False,
        attention_decoder: Optional[AttentionDecoder] = None,
        intermediate_ctc: Optional[IntermediateCtc] = None,
        loss: str = "pruned",
    ) -> None:
        super().__init__()
        if not (use_transducer or use_ctc):
            raise ValueError("at least one of use_transducer and use_ctc must be true")
        self.encoder_embed = encoder_embed
        self.encoder = encoder
        self.use_transducer = use_transducer
        self.use_ctc = use_ctc
        self.vocab_size = vocab_size
        if use_transducer:
            if decoder is None or joiner is None:
                raise ValueError("a transducer needs a decoder and a joiner")
            self.decoder = decoder
            self.joiner = joiner
            self.pruned = loss == "pruned"
            if self.pruned:
                self.simple_am_proj = ScaledLinear(encoder_dim, vocab_size, initial_scale=0.25)
                self.simple_lm_proj = ScaledLinear(decoder_dim, vocab_size, initial_scale=0.25)
        if use_ctc:
            self.ctc_output = nn.Sequential(
                nn.Dropout(p=0.1), nn.Linear(encoder_dim, vocab_size), nn.LogSoftmax(dim=-1)
            )
        self.use_attention_decoder = attention_decoder is not None
        if attention_decoder is not None:
            self.attention_decoder = attention_decoder
        self.use_intermediate_ctc = intermediate_ctc is not None
        if intermediate_ctc is not None:
            self.intermediate_ctc = intermediate_ctc

    def forward(
        self,
        x: Tensor,
        x_lens: Tensor,
        y: List[List[int]],
        prune_range: int = 5,
        am_scale: float = 0.0,
        lm_scale: float = 0.25,
        reduction: str = "sum",
        use_cr_ctc: bool = False,
        delay_penalty: float = 0.0,
        fast_emit_lambda: float = 0.0,
    ) -> Losses:
        """Compute the losses of a batch.

        Args:
          x: (N, T, F) features.
          x_lens: (N,) valid frames; on the CPU they save a wait for the device of x.
          y: N lists of token ids.
          prune_range: symbols kept per frame in the pruned loss.
          am_scale, lm_scale: weights of the acoustic-only and the LM-only smoothing of the simple
            loss.
          reduction: "sum" over utterances, or "none".
          use_cr_ctc: rows i and N / 2 + i are two views of one utterance: losses are means over
            both, and ``cr_loss`` is the divergence of the views' CTC posteriors (Yao et al. 2024,
            https://arxiv.org/abs/2410.05101).
          delay_penalty: added to each symbol's score for each frame that it comes before the middle
            of the utterance.
          fast_emit_lambda: weight of FastEmit, see :mod:`asr_core.ops.rnnt_loss`.
        """
        self._check(x, x_lens, y, reduction, use_cr_ctc)
        given = (x_lens, x.size(1))
        x, x_lens = self.encoder_embed(x, sent(x_lens, x.device))
        stacks: List[Tensor] = []
        if self.use_intermediate_ctc:
            encoder_out, encoder_out_lens, stacks = cast(LayeredEncoder, self.encoder).forward_stacks(
                x, x_lens
            )
        else:
            encoder_out, encoder_out_lens = self.encoder(x, x_lens)
        losses: Dict[str, Tensor] = {}
        if self.use_transducer:
            lattice = prepare_lattice(
                self.decoder,
                encoder_out_lens,
                y,
                device=encoder_out.device,
                delay_penalty=delay_penalty,
                fast_emit_lambda=fast_emit_lambda,
                least_lens=_least_lens(*given, encoder_out.size(1)),
            )
            smoothing = Smoothing(am_scale, lm_scale)
            losses.update(self._transducer_losses(encoder_out, lattice, prune_range, smoothing))
        if self.use_ctc:
            log_probs = self.ctc_output(encoder_out)
            losses["ctc_loss"] = ctc_loss(log_probs, encoder_out_lens, y)
            if use_cr_ctc:
                losses["cr_loss"] = consistency_loss(log_probs.float(), encoder_out_lens)
        if self.use_attention_decoder:
            losses["attention_decoder_loss"] = self.attention_decoder(encoder_out, encoder_out_lens, y)
        if self.use_intermediate_ctc:
            each = [ctc_loss(inner, encoder_out_lens, y) for inner in self.intermediate_ctc(stacks)]
            losses["intermediate_ctc_loss"] = torch.stack(each).mean(dim=0)
        reduced = {name: _reduce(loss, reduction, use_cr_ctc) for name, loss in losses.items()}
        return Losses(**{name: reduced.get(name) for name in Losses._fields})

    def _transducer_losses(
        self, encoder_out: Tensor, lattice: LatticeInputs, prune_range: int, smoothing: Smoothing
    ) -> Dict[str, Tensor]:
        """Return the losses (N,) of encoder_out (N, T, C) that the transducer has, by name."""
        if not self.pruned:
            return {"rnnt_loss": full_loss(self.joiner, encoder_out, lattice)}
        simple_loss, pruned_loss = pruned_losses(
            self.joiner,
            (self.simple_am_proj, self.simple_lm_proj),
            encoder_out,
            lattice,
            prune_range=prune_range,
            smoothing=smoothing,
        )
        return {"simple_loss": simple_loss, "pruned_loss": pruned_loss}

    def _check(self, x: Tensor, x_lens: Tensor, y: List[List[int]], reduction: str, use_cr_ctc: bool) -> None:
        """Refuse arguments of :meth:`forward` that do not fit x (N, T, F) or each other."""
        if x.dim() != 3 or x_lens.dim() != 1 or not x.size(0) == x_lens.size(0) == len(y):
            raise ValueError(
                f"batch sizes differ: features {tuple(x.shape)}, lengths {tuple(x_lens.shape)}, "
                f"{len(y)} token lists"
            )
        if reduction not in ("sum", "none"):
            raise ValueError(f'reduction is "sum" or "none", not {reduction!r}')
        if use_cr_ctc and (not self.use_ctc or len(y) % 2 != 0):
            raise ValueError(
                f"use_cr_ctc needs a CTC head and two views of each utterance, got {len(y)} utterances"
            )

    def forward_encoder(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
          x: (N, T, F) features.
          x_lens: (N,) valid frames.

        Returns:
          encoder_out (N, T', C) and its lengths (N,).
        """
        x, x_lens = self.encoder_embed(x, x_lens)
        return self.encoder(x, x_lens)

    def set_chunk(self, chunk_size: int, left_context_frames: int) -> None:
        """Fix the chunk size and left context that a causal encoder uses from now on.

        Args:
          chunk_size, left_context_frames: in 50 Hz frames; -1 stands for all.

        Raises:
          UserError: they do not fit the encoder.
        """
        if self.encoder.causal:
            self.encoder.check_chunk(chunk_size, left_context_frames)
        self.encoder.chunk_size = (chunk_size,)
        self.encoder.left_context_frames = (left_context_frames,)

    @property
    def geometry(self) -> FrameGeometry:
        """The mapping from feature frames (N, T, F) to frames of encoder output (N, T', C)."""
        embed = self.encoder_embed
        return FrameGeometry(
            embed.subsampling_factor,
            self.encoder.output_downsampling_factor,
            embed.trimmed_frames,
            embed.look_ahead,
        )

    @property
    def chunk_frames(self) -> int:
        """Number of feature frames (100 Hz) by which the window (N, window_frames, F) advances."""
        return 2 * self.encoder.chunk_size[0]

    @property
    def window_frames(self) -> int:
        """Number of feature frames in the window (N, window_frames, F) of one streaming step."""
        return self.chunk_frames + self.geometry.look_ahead

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` new streams.

        They are the encoder's, the front end's left context, and the count of processed frames
        (N,).
        """
        device = torch.device(device)
        states = cast(StreamingEncoder, self.encoder).get_init_states(batch_size, device)
        embed_state = cast(StreamingFrontEnd, self.encoder_embed).get_init_states(batch_size, device)
        return [*states[:-1], embed_state, states[-1]]

    def state_batch_dims(self) -> List[int]:
        """Return the batch axis of each state of :meth:`get_init_states`, e.g. 0 for (N, T, C)."""
        dims = cast(StreamingEncoder, self.encoder).state_batch_dims()
        return [*dims[:-1], 0, dims[-1]]

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (N, window_frames, F) features; the next call's window begins ``chunk_frames`` later.
          x_lens: (N,) valid frames, at most ``window_frames``.
          states: from :meth:`get_init_states` or the previous call.

        Returns:
          encoder_out (N, chunk_frames / subsampling factor, C), its lengths (N,), and the next
          states.
        """
        front_end, encoder = cast(StreamingFrontEnd, self.encoder_embed), cast(StreamingEncoder, self.encoder)
        x, x_lens, embed_state = front_end.streaming_forward(x, x_lens, states[-2])
        encoder_out, encoder_out_lens, new_states = encoder.streaming_forward(
            x, x_lens, [*states[:-2], states[-1]]
        )
        return encoder_out, encoder_out_lens, [*new_states[:-1], embed_state, new_states[-1]]


def _least_lens(x_lens: Tensor, num_frames: int, num_out: int) -> Optional[Tensor]:
    """Return lower bounds (N,) of an encoder's lengths, if x_lens (N,) are on the CPU: they shrink
    as the padded length does, from ``num_frames`` to ``num_out``, up to rounding.
    """
    if x_lens.device.type != "cpu":
        return None
    return (x_lens * num_out // num_frames - 2).clamp(min=1)


def _reduce(loss: Tensor, reduction: str, two_views: bool) -> Tensor:
    """Average losses (2 N,) of two views to (N,); sum losses (N,) unless reduction is "none"."""
    if two_views:
        loss = 0.5 * (loss[: loss.size(0) // 2] + loss[loss.size(0) // 2 :])
    return loss.sum() if reduction == "sum" else loss
