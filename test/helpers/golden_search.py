"""The reference's decoder, joiner, encoder outputs and hypotheses, for tests and benchmarks of
searches.
"""

from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden" / "search_dev.npz"


class Decoder(nn.Module):
    """A stateless predictor written down as the reference describes it."""

    def __init__(self, vocab_size: int, dim: int, context_size: int = 2, groups: int = 32) -> None:
        super().__init__()
        self.blank_id, self.vocab_size, self.context_size = 0, vocab_size, context_size
        self.embedding = nn.Embedding(vocab_size, dim)
        self.conv = nn.Conv1d(dim, dim, context_size, groups=groups, bias=False)

    def forward(self, y: Tensor, need_pad: bool = True) -> Tensor:
        assert not need_pad
        embedded = self.embedding(y.clamp(min=0)) * (y >= 0).unsqueeze(-1)
        return self.conv(embedded.transpose(1, 2)).transpose(1, 2).relu()


class Joiner(nn.Module):
    def __init__(self, encoder_dim: int, decoder_dim: int, joiner_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder_proj = nn.Linear(encoder_dim, joiner_dim)
        self.decoder_proj = nn.Linear(decoder_dim, joiner_dim)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        assert not project_input
        return self.output_linear((encoder_out + decoder_out).tanh())


class SearchModel(nn.Module):
    """Just what a search needs of a transducer."""

    def __init__(self, vocab_size: int, dim: int, context_size: int = 2, groups: int = 32) -> None:
        super().__init__()
        self.decoder = Decoder(vocab_size, dim, context_size, groups)
        self.joiner = Joiner(dim, dim, dim, vocab_size)


def load_golden() -> Dict[str, np.ndarray]:
    with np.load(GOLDEN) as data:
        return dict(data)


def golden_model(data: Dict[str, np.ndarray]) -> SearchModel:
    prefix = "state_dict/"
    state = {k[len(prefix) :]: torch.from_numpy(v) for k, v in data.items() if k.startswith(prefix)}
    vocab_size, dim = state["decoder.embedding.weight"].shape
    model = SearchModel(vocab_size, dim)
    model.load_state_dict(state)
    return model.eval()


def batches(data: Dict[str, np.ndarray], size: int) -> Iterator[Tuple[Tensor, Tensor]]:
    x, lens = torch.from_numpy(data["encoder_out"]), torch.from_numpy(data["encoder_out_lens"])
    for start in range(0, len(x), size):
        part = lens[start : start + size]
        yield x[start : start + size, : int(part.max())], part


def expected(data: Dict[str, np.ndarray], method: str) -> List[List[int]]:
    flat, lengths = data[f"hyps/{method}/tokens"], data[f"hyps/{method}/lengths"]
    return [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]
