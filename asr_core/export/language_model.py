"""Neural language models in files for others: weights alone, or TorchScript."""

from pathlib import Path
from typing import Any, Dict, Tuple

import torch
from torch import Tensor, nn

from asr_core.lm.neural import NeuralLm, RnnLm, TransformerLm, token_costs
from asr_core.utils.files import PathLike, atomic_path


class RnnScorer(nn.Module):
    """An LSTM language model whose script scores sentences, and tokens one after the other.

    Args:
      lm: the model.
    """

    def __init__(self, lm: RnnLm) -> None:
        super().__init__()
        self.input_embedding, self.rnn, self.output_linear = lm.input_embedding, lm.rnn, lm.output_linear

    def forward(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`asr_core.lm.neural.NeuralLm.forward`."""
        return token_costs(self.output_linear(self.rnn(self.input_embedding(x))[0]), y, lengths)

    @torch.jit.export
    def score_token(self, tokens: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Log probabilities (N, V) of what follows ``tokens`` (N, L), and the next states; states (layers, N, H), at first zeros."""
        out, (h, c) = self.rnn(self.input_embedding(tokens), (h, c))
        return self.output_linear(out[:, -1]).float().log_softmax(dim=-1), h, c


class TransformerScorer(nn.Module):
    """A transformer language model whose script scores sentences, and tokens one after the other.

    Args:
      lm: the model.
    """

    def __init__(self, lm: TransformerLm) -> None:
        super().__init__()
        self.lm = lm
        self.num_states, self.dim = 2 * len(lm.layers), lm.d_model

    def forward(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`asr_core.lm.neural.NeuralLm.forward`."""
        past = torch.zeros([self.num_states, x.size(0), 0, self.dim], device=x.device)
        done = torch.zeros([x.size(0)], dtype=torch.int64, device=x.device)
        return token_costs(self.lm.output_linear(self.lm.attend(x, done, past)[0]), y, lengths)

    @torch.jit.export
    def score_token(self, tokens: Tensor, past: Tensor) -> Tuple[Tensor, Tensor]:
        """Log probabilities (N, V) of what follows ``tokens`` (N, L), and the next states.

        All histories are equally long; ``past`` is (2 * layers, N, T, C), at first with T = 0.
        """
        done = torch.full([tokens.size(0)], past.size(2), dtype=torch.int64, device=tokens.device)
        out, kept = self.lm.attend(tokens, done, past)
        return self.lm.output_linear(out[:, -1]).float().log_softmax(dim=-1), torch.stack(kept)


def save_lm(lm: NeuralLm, path: PathLike, jit: bool = False) -> Path:
    """Write a language model, whole or not at all.

    Args:
      lm: the model.
      path: the file.
      jit: TorchScript, see :class:`RnnScorer` and :class:`TransformerScorer`; else the weights, in the form of a checkpoint.
    """
    with atomic_path(path) as tmp:
        if jit:
            scorer = RnnScorer(lm) if isinstance(lm, RnnLm) else TransformerScorer(lm)  # type: ignore[arg-type]
            torch.jit.save(torch.jit.script(scorer.eval()), str(tmp))
        else:
            content: Dict[str, Any] = {"model": lm.state_dict()}
            if isinstance(lm, TransformerLm):
                content["nhead"] = lm.layers[0].nhead  # which the weights do not tell
            torch.save(content, tmp)
    return Path(path)
