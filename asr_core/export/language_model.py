"""Files of neural language models for other programs: weights, or TorchScript."""

from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from asr_core.lm.neural import NeuralLm, RnnLm, TransformerLm, token_costs
from asr_core.text.pieces import KEY
from asr_core.text.tokenizer import format_tokens
from asr_core.utils.files import atomic_path
from asr_core.utils.paths import PathLike


class RnnScorer(nn.Module):
    """An LSTM language model whose script scores whole sentences, or token by token.

    Args:
      lm: model of V tokens, with L layers of H cells.
    """

    def __init__(self, lm: RnnLm) -> None:
        super().__init__()
        self.input_embedding, self.rnn, self.output_linear = lm.input_embedding, lm.rnn, lm.output_linear

    def forward(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """Score whole sentences, see :meth:`asr_core.lm.neural.NeuralLm.forward`.

        Args:
          x: (N, T) tokens, from the start of each sentence on.
          y: (N, T) tokens that follow them.
          lengths: (N,) valid tokens.

        Returns:
          (N, T) negative log-probabilities, 0 at padding.
        """
        return token_costs(self.output_linear(self.rnn(self.input_embedding(x))[0]), y, lengths)

    @torch.jit.export
    def score_token(self, tokens: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Score what follows more tokens of each sentence.

        Args:
          tokens: (N, T).
          h, c: states (L, N, H) before them, zeros at first.

        Returns:
          Log-probabilities (N, V) of the next token, and the next states.
        """
        out, (h, c) = self.rnn(self.input_embedding(tokens), (h, c))
        return self.output_linear(out[:, -1]).float().log_softmax(dim=-1), h, c


class TransformerScorer(nn.Module):
    """A transformer language model whose script scores whole sentences, or token by token.

    Args:
      lm: model of V tokens, with L layers of width C.
    """

    def __init__(self, lm: TransformerLm) -> None:
        super().__init__()
        self.lm = lm
        self.num_states, self.dim = 2 * len(lm.layers), lm.d_model

    def forward(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """Score whole sentences (N, T) as :meth:`RnnScorer.forward` does."""
        past = torch.zeros([self.num_states, x.size(0), 0, self.dim], device=x.device)
        done = torch.zeros([x.size(0)], dtype=torch.int64, device=x.device)
        return token_costs(self.lm.output_linear(self.lm.attend(x, done, past)[0]), y, lengths)

    @torch.jit.export
    def score_token(self, tokens: Tensor, past: Tensor) -> Tuple[Tensor, Tensor]:
        """Score what follows more tokens of each sentence; all histories are equally long.

        Args:
          tokens: (N, T).
          past: (2 L, N, S, C) keys and values of the S tokens before them, S = 0 at first.

        Returns:
          Log-probabilities (N, V) of the next token, and the next ``past``.
        """
        done = torch.full([tokens.size(0)], past.size(2), dtype=torch.int64, device=tokens.device)
        out, kept = self.lm.attend(tokens, done, past)
        return self.lm.output_linear(out[:, -1]).float().log_softmax(dim=-1), torch.stack(kept)


def _scorer(lm: NeuralLm) -> nn.Module:
    if isinstance(lm, RnnLm):
        return RnnScorer(lm)
    if isinstance(lm, TransformerLm):
        return TransformerScorer(lm)
    raise TypeError(f"no scorer for a {type(lm).__name__}")


def save_lm(lm: NeuralLm, path: PathLike, jit: bool = False, pieces: Optional[Sequence[str]] = None) -> Path:
    """Write a language model to a file, atomically.

    Args:
      lm: model.
      path: file.
      jit: write TorchScript, see :class:`RnnScorer` and :class:`TransformerScorer`; else the
        weights, in the form of a checkpoint.
      pieces: its tokens by id, if they are known, which the file records.

    Returns:
      The path of the file.
    """
    with atomic_path(path) as tmp:
        if jit:
            extra = {"tokens.txt": format_tokens(pieces)} if pieces else {}
            torch.jit.save(torch.jit.script(_scorer(lm).eval()), str(tmp), _extra_files=extra)
        else:
            content: Dict[str, object] = {"model": lm.state_dict()}
            if pieces:
                content[KEY] = list(pieces)
            if isinstance(lm, TransformerLm):
                content["nhead"] = lm.layers[0].nhead  # the weights do not show it
            torch.save(content, tmp)
    return Path(path)
