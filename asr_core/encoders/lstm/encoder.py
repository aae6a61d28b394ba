"""An encoder of LSTM layers with projection, after icefall's ``lstm_transducer_stateless``."""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.frame_causal import FrameCausalEncoder
from asr_core.encoders.lstm.options import LstmOptions
from asr_core.nn.lstm import LstmLayer
from asr_core.nn.module_list import module_list
from asr_core.nn.scaling import ActivationDropoutAndLinear, BiasNorm, ScaledLinear


class LstmEncoderLayer(nn.Module):
    """LSTM and feed-forward module, each added to its input, then BiasNorm.

    Args:
      encoder_dim: width D of input and output.
      hidden_dim: width H of the cells.
      feedforward_dim: width inside the feed-forward module.
      dropout: dropout rate of what each part adds.
    """

    compiled = "never"

    def __init__(self, encoder_dim: int, hidden_dim: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.lstm = LstmLayer(encoder_dim, hidden_dim, encoder_dim if encoder_dim != hidden_dim else 0)
        # a small initial scale makes the residual branch start weak
        self.feed_forward_in = ScaledLinear(encoder_dim, feedforward_dim)
        self.feed_forward_out = ActivationDropoutAndLinear(
            feedforward_dim, encoder_dim, activation="SwooshR", dropout_p=dropout, initial_scale=0.25
        )
        self.norm = BiasNorm(encoder_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Encode the next frames of each sequence.

        Args:
          x: (N, T, D).
          h: (N, D) output of the LSTM at the frame before.
          c: (N, H) its cells there.

        Returns:
          (N, T, D), and the next h and c.
        """
        y, h, c = self.lstm(x, h, c)
        x = x + self.dropout(y)
        x = x + self.dropout(self.feed_forward_out(self.feed_forward_in(x)))
        return self.norm(x), h, c


class LstmEncoder(FrameCausalEncoder):
    """Layers of :class:`LstmEncoderLayer` at the rate of the front end.

    Args:
      opts: number L of layers, widths D (``encoder_dim``) and H (``rnn_hidden_size``), dropout. The
        output does not depend on its chunks.
      chunk_multiple: 50 Hz frames per frame of the front end.
    """

    def __init__(self, opts: LstmOptions, chunk_multiple: int = 2) -> None:
        super().__init__(True, opts.chunk_size, opts.left_context_frames, chunk_multiple)
        dim, hidden_dim, feedforward_dim = opts.encoder_dim, opts.rnn_hidden_size, opts.dim_feedforward
        num_layers, dropout = opts.num_encoder_layers, opts.dropout
        if min(num_layers, dim, hidden_dim, feedforward_dim) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                "the number of layers and their widths must be positive, and dropout at least 0 and below 1"
            )
        self.output_downsampling_factor = 1
        self.encoder_dim = (dim,) * num_layers
        self.output_dim = dim
        self.hidden_dim = hidden_dim
        self.layers = module_list(
            [LstmEncoderLayer(dim, hidden_dim, feedforward_dim, dropout) for _ in range(num_layers)]
        )

    def forward(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Encode whole utterances: x (N, T, D) and lengths (N,) -> (N, T, D) and the lengths."""
        x, x_lens, _ = self.forward_stacks(x, x_lens)
        return x, x_lens

    def forward_stacks(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode as :meth:`forward` does, and return the output (T, N, D) of each layer, too."""
        outputs: List[Tensor] = []
        h, c = torch.zeros_like(x[:, 0]), x.new_zeros(x.size(0), self.hidden_dim)
        for layer in self.layers:
            x, _, _ = layer(x, h, c)  # (N, T, D)
            outputs.append(x.transpose(0, 1))
        return x, x_lens, outputs

    def get_init_states(
        self, batch_size: int = 1, device: torch.device = torch.device("cpu")
    ) -> List[Tensor]:
        """Return the states of N = ``batch_size`` new streams.

        Outputs (N, L, D) and cells (N, L, H) of the layers; last, the count of processed frames
        (N,) int32.

        Raises:
          UserError: there is not one limited chunk size.
        """
        self._check_streaming()
        return [
            torch.zeros(batch_size, len(self.layers), self.output_dim, device=device),
            torch.zeros(batch_size, len(self.layers), self.hidden_dim, device=device),
            torch.zeros(batch_size, dtype=torch.int32, device=device),
        ]

    def state_batch_dims(self) -> List[int]:
        """Return the batch axis of each state of :meth:`get_init_states`."""
        return [0, 0, 0]

    def streaming_forward(
        self, x: Tensor, x_lens: Tensor, states: List[Tensor]
    ) -> Tuple[Tensor, Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (N, T, encoder_dim).
          x_lens: (N,) valid frames; less than T only in a stream's last chunk.
          states: from :meth:`get_init_states` or the previous call.

        Returns:
          (N, T, encoder_dim), its lengths, and the next states.
        """
        outputs: List[Tensor] = []
        cells: List[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, h, c = layer(x, states[0][:, i], states[1][:, i])
            outputs.append(h)
            cells.append(c)
        next_states = [
            torch.stack(outputs, dim=1),
            torch.stack(cells, dim=1),
            states[2] + x_lens.to(states[2].dtype),
        ]
        return x, x_lens, next_states
