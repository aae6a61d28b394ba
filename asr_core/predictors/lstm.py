"""The LSTM predictor of a transducer (Graves 2012, https://arxiv.org/abs/1211.3711)."""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from asr_core.nn.lstm import LstmLayer


class LstmPredictor(nn.Module):
    """An embedding and layers of an LSTM, which sees all tokens so far.

    Args:
      vocab_size: number of tokens.
      decoder_dim: width D of the output.
      blank_id: id of the blank, which also stands at the start of a sequence.
      embedding_dim: width of the embedding; 0 stands for decoder_dim.
      num_layers: number L of layers.
      hidden_dim: width H of the cells, which each layer projects to decoder_dim; 0 stands for
        decoder_dim, without projection.
      layer_norm: whether each layer's output is normalised.
      cell_clip: see :class:`~asr_core.nn.lstm.LstmLayer`.
    """

    def __init__(
        self,
        vocab_size: int,
        decoder_dim: int,
        blank_id: int,
        embedding_dim: int = 0,
        num_layers: int = 1,
        hidden_dim: int = 0,
        layer_norm: bool = False,
        cell_clip: float = 0.0,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        self.blank_id = blank_id
        self.vocab_size = vocab_size
        self.decoder_dim = decoder_dim
        self.hidden_dim = hidden_dim or decoder_dim
        self.num_layers = num_layers
        self.embedding = nn.Embedding(vocab_size, embedding_dim or decoder_dim)
        self.layers = nn.ModuleList(
            [
                LstmLayer(
                    (embedding_dim or decoder_dim) if i == 0 else decoder_dim,
                    self.hidden_dim,
                    decoder_dim if hidden_dim else 0,
                    cell_clip,
                )
                for i in range(num_layers)
            ]
        )
        self.norms = nn.ModuleList(
            [nn.LayerNorm(decoder_dim) if layer_norm else nn.Identity() for _ in range(num_layers)]
        )

    def forward(self, y: Tensor) -> Tensor:
        """Predict after each token of sequences that begin with a blank.

        Args:
          y: (N, U) tokens.

        Returns:
          (N, U, decoder_dim)
        """
        h, c = self.get_init_states(y.size(0))
        return self._predict(y, h, c)[0]

    def _predict(self, y: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Predict (N, U, D) after tokens y (N, U) and states h (N, L, D), c (N, L, H)."""
        x = self.embedding(y)
        last_h: List[Tensor] = []
        last_c: List[Tensor] = []
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms)):
            x, new_h, new_c = layer(x, h[:, i], c[:, i])
            x = norm(x)
            last_h.append(new_h)
            last_c.append(new_c)
        return x, torch.stack(last_h, dim=1), torch.stack(last_c, dim=1)

    @torch.jit.export
    def get_init_states(self, batch_size: int = 1) -> Tuple[Tensor, Tensor]:
        """Return the states before the first token: outputs (N, L, D) and cells (N, L, H)."""
        weight = self.embedding.weight
        h = torch.zeros(
            batch_size, self.num_layers, self.decoder_dim, dtype=weight.dtype, device=weight.device
        )
        return h, torch.zeros(
            batch_size, self.num_layers, self.hidden_dim, dtype=weight.dtype, device=weight.device
        )

    @torch.jit.export
    def step(self, y: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Predict after one more token of each sequence.

        Args:
          y: (N,) tokens.
          h, c: states (N, L, D) and (N, L, H), as :meth:`get_init_states` or the previous step
            returned them.

        Returns:
          (N, decoder_dim) and the states after the tokens.
        """
        x, h, c = self._predict(y.unsqueeze(1), h, c)
        return x.squeeze(1), h, c
