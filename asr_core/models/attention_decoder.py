"""An attention decoder trained jointly with CTC or the transducer (Watanabe et al. 2017)."""

from typing import List, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.transformer import DecoderConfig, TransformerDecoder
from asr_core.ops.host import sent


class AttentionDecoder(nn.Module):
    """A Transformer decoder: encoder output (N, T, C) and tokens (N, U) to logits (N, U, V).

    Each token is predicted from those before it and the encoder output.

    Args:
      vocab_size: number V of tokens.
      config: sizes of the decoder; ``memory_dim`` is the width C of the encoder's output.
      sos_id, eos_id: ids of the tokens that open and close a sentence.
      label_smoothing: share of the target's probability that is spread over all V tokens (Szegedy
        et al. 2016, section 7).
    """

    def __init__(
        self,
        vocab_size: int,
        config: DecoderConfig = DecoderConfig(),
        *,
        sos_id: int = 1,
        eos_id: int = 1,
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__()
        self.sos_id = sos_id
        self.eos_id = eos_id
        self.ignore_id = -1  # target at padding
        self.label_smoothing = label_smoothing
        self.decoder = TransformerDecoder(vocab_size, config)

    def forward(self, encoder_out: Tensor, encoder_out_lens: Tensor, token_ids: List[List[int]]) -> Tensor:
        """Compute the training loss, cross entropy with label smoothing, summed over each sentence.

        Args:
          encoder_out: (N, T, C).
          encoder_out_lens: (N,) valid frames, at least 1.
          token_ids: N sentences, without sos and eos.

        Returns:
          (N,), float32.
        """
        logits, targets = self._logits(encoder_out, encoder_out_lens, token_ids)
        loss = F.cross_entropy(
            logits.float().transpose(1, 2),
            targets,
            ignore_index=self.ignore_id,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return loss.sum(dim=1)

    @torch.jit.export
    def nll(self, encoder_out: Tensor, encoder_out_lens: Tensor, token_ids: List[List[int]]) -> Tensor:
        """Compute the negative log-probability of each token, for rescoring.

        The arguments are those of :meth:`forward`.

        Returns:
          (N, U), U one more than the longest sentence: the tokens, then the end, then zeros.
        """
        logits, targets = self._logits(encoder_out, encoder_out_lens, token_ids)
        return F.cross_entropy(
            logits.float().transpose(1, 2), targets, ignore_index=self.ignore_id, reduction="none"
        )

    def _logits(
        self, encoder_out: Tensor, encoder_out_lens: Tensor, token_ids: List[List[int]]
    ) -> Tuple[Tensor, Tensor]:
        """Return logits (N, U, V) and targets (N, U), which are ``ignore_id`` at padding."""
        longest = 1
        for sentence in token_ids:
            longest = max(longest, len(sentence) + 1)
        inputs = torch.full([len(token_ids), longest], self.eos_id, dtype=torch.int64)
        targets = torch.full([len(token_ids), longest], self.ignore_id, dtype=torch.int64)
        for i, sentence in enumerate(token_ids):
            n = len(sentence)
            row = torch.tensor(sentence, dtype=torch.int64)
            inputs[i, 0] = self.sos_id
            inputs[i, 1 : n + 1] = row
            targets[i, :n] = row
            targets[i, n] = self.eos_id
        device = encoder_out.device
        if torch.jit.is_scripting():
            return self.decoder(inputs.to(device), encoder_out, encoder_out_lens), targets.to(device)
        return self.decoder(sent(inputs, device), encoder_out, encoder_out_lens), sent(targets, device)
