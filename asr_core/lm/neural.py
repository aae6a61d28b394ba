"""Neural language models over tokens: an LSTM and a causal transformer with one interface."""

import math
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from asr_core.lm.options import RnnOptions, TransformerOptions
from asr_core.utils.errors import UserError

SOS = EOS = 1  # id of <sos/eos>
_GATES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # parameters of an LSTM layer

States = Tuple[Tensor, ...]


class NeuralLm(nn.Module):
    """Base of both models: the loss, scores of sentences, and states that a search can select.

    The states of N histories are one tuple of tensors, with the histories in dimension 1.

    Attributes:
      vocab_size: V, the number of tokens.
    """

    vocab_size: int
    if TYPE_CHECKING:  # TorchScript would take the annotation of a submodule for an interface
        output_linear: nn.Linear

    def hidden(
        self, tokens: Tensor, lens: Optional[Tensor], states: Optional[States]
    ) -> Tuple[Tensor, States]:
        """Compute the input of the output layer at each token, and the states at the end.

        Args:
          tokens: (N, L) int64.
          lens: (N,) how many tokens of each row count; None: states are not wanted, and none are
            returned.
          states: those before the tokens; None at the start of a sentence.

        Returns:
          (N, L, C) and the states after the first ``lens`` tokens.
        """
        raise NotImplementedError

    @torch.jit.unused
    def forward(self, x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        """Return the negative log-probability of each next token.

        Args:
          x: (N, L) int64, the history: ``<sos/eos>`` and the sentence.
          y: (N, L) int64, the next tokens: the sentence and ``<sos/eos>``.
          lengths: (N,) valid positions, at least 1.

        Returns:
          (N, L) float32, natural logarithms, zero where a sentence has ended.
        """
        return token_costs(self.output_linear(self.hidden(x, None, None)[0]), y, lengths)

    def score_tokens(
        self, tokens: Tensor, lens: Tensor, states: Optional[States] = None
    ) -> Tuple[Tensor, States]:
        """Return the log-probabilities of the token that follows each history.

        Args:
          tokens: (N, L) int64, the tokens after the states; a sentence begins with ``<sos/eos>``.
          lens: (N,) how many of them count, at least 1.
          states: from an earlier call, see :meth:`select_states`; None at the start of a sentence.

        Returns:
          Natural log-probabilities (N, V) and the states after these tokens.
        """
        hidden, states = self.hidden(tokens, lens, states)  # (N, L, C)
        last = hidden[torch.arange(len(lens), device=hidden.device), lens.to(hidden.device) - 1]  # (N, C)
        return self.output_linear(last).float().log_softmax(dim=-1), states

    @torch.no_grad()
    def sentence_log_probs(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Return the natural log-probability (N,) of whole sentences of token ids.

        The end of the sentence is included; sentences may be empty.
        """
        device = next(self.parameters()).device
        if not sentences:
            return torch.zeros(0, device=device)
        x, y, lens = pad_sentences(sentences)
        return -self(x.to(device), y.to(device), lens.to(device)).sum(dim=1)

    @staticmethod
    def select_states(states: States, index: Tensor) -> States:
        """Return the states of histories ``index`` (M,) out of N; indices may be repeated."""
        return tuple(s.index_select(1, index) for s in states)

    @staticmethod
    def replace_states(states: States, index: Tensor, new: States) -> States:
        """Return ``states`` with those of histories ``index`` (M,) replaced by ``new``."""
        return tuple(_replace(s, index, n) for s, n in zip(states, new))

    @staticmethod
    def join_states(parts: Sequence[States]) -> States:
        """Return the states of several groups of histories as those of one group."""
        return tuple(torch.cat(tensors, dim=1) for tensors in zip(*parts))


def token_costs(logits: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
    """Return the negative log-probability of each token.

    Args:
      logits: (N, L, V).
      y: (N, L) int64, the tokens.
      lengths: (N,) valid positions.

    Returns:
      (N, L) float32, natural logarithms, zero from ``lengths`` on.
    """
    nll = F.cross_entropy(logits.float().transpose(1, 2), y, reduction="none")
    inside = torch.arange(y.size(1), device=y.device)[None, :] < lengths[:, None]
    return nll.masked_fill(~inside, 0.0)


def pad_sentences(sentences: Sequence[Sequence[int]]) -> Tuple[Tensor, Tensor, Tensor]:
    """Return inputs (N, L), targets (N, L) and lengths (N,) of sentences.

    ``<sos/eos>`` precedes each sentence in the inputs and follows it in the targets.
    """
    flat = torch.tensor([token for sentence in sentences for token in sentence], dtype=torch.int64)
    return pad_tokens(flat, torch.tensor([len(sentence) for sentence in sentences]))


def pad_tokens(tokens: Tensor, lengths: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Pad sentences that follow one another, see :func:`pad_sentences`.

    Args:
      tokens: (sum of lengths,) token ids.
      lengths: (N,) tokens of each sentence.
    """
    lens = lengths.long() + 1
    place = torch.arange(int(lens.max()))
    x = torch.full((len(lens), len(place)), SOS, dtype=torch.int64)
    y = torch.full_like(x, EOS)
    x[(place > 0) & (place < lens[:, None])] = tokens
    y[place < lens[:, None] - 1] = tokens
    return x, y, lens


def _replace(states: Tensor, index: Tensor, new: Tensor) -> Tensor:
    # Dimension 2 may differ: the histories of a transformer have as many positions as the longest.
    if states.dim() == 4 and states.size(2) != new.size(2):
        length = max(states.size(2), new.size(2))
        states, new = (F.pad(t, (0, 0, 0, length - t.size(2))) for t in (states, new))
    return states.index_copy(1, index, new.to(states.dtype))


def _tie(output: nn.Linear, embedding: nn.Embedding, tie_weights: bool, flags: str) -> None:
    if not tie_weights:
        return
    if output.weight.shape != embedding.weight.shape:
        raise UserError(
            f"weights can be tied only where {flags} are equal, "
            f"got {output.in_features} and {embedding.embedding_dim}"
        )
    output.weight = embedding.weight


class RnnLm(NeuralLm):
    """Embedding, LSTM layers, linear output (Mikolov et al. 2010).

    Weights may be tied as in Press and Wolf 2017. Parameters have icefall's names:
    ``input_embedding``, ``rnn``, ``output_linear``. The states are (h, c), each (layers, N, H).

    Args:
      vocab_size: number of tokens.
      sizes: widths and depth, and whether weights are tied.

    Raises:
      UserError: weights are tied but the widths differ.
    """

    def __init__(self, vocab_size: int, sizes: RnnOptions) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.input_embedding = nn.Embedding(vocab_size, sizes.embedding_dim)
        self.rnn = nn.LSTM(sizes.embedding_dim, sizes.hidden_dim, sizes.num_layers, batch_first=True)
        self.output_linear = nn.Linear(sizes.hidden_dim, vocab_size)
        _tie(self.output_linear, self.input_embedding, sizes.tie_weights, "--embedding-dim and --hidden-dim")

    def step(self, tokens: Tensor, states: States) -> Tuple[Tensor, States]:
        """Return what :meth:`score_tokens` does for one more token (N,) of each history; nothing
        waits for the device.
        """
        x, after = self.input_embedding(tokens), []
        for k, (h, c) in enumerate(zip(*states)):
            weights = (getattr(self.rnn, f"{name}_l{k}") for name in _GATES)
            x, c = torch.lstm_cell(x, (h, c), *weights)
            after.append((x, c))
        hidden, cells = (torch.stack(tensors) for tensors in zip(*after))
        return self.output_linear(x).float().log_softmax(dim=-1), (hidden, cells)

    def hidden(
        self, tokens: Tensor, lens: Optional[Tensor], states: Optional[States]
    ) -> Tuple[Tensor, States]:
        """See :class:`NeuralLm`."""
        embedded = self.input_embedding(tokens)
        out, after = self.rnn(embedded, states)
        if lens is None:
            return out, ()
        lens = lens.to("cpu")
        if bool((lens == tokens.size(1)).all()):
            return out, after
        # The states must be those after the last token that counts, so the LSTM must not see
        # padding.
        packed = pack_padded_sequence(embedded, lens, batch_first=True, enforce_sorted=False)
        return out, self.rnn(packed, states)[1]


class TransformerLm(NeuralLm):
    """Causal transformer, pre-norm, with sinusoidal positions (Vaswani et al. 2017).

    The states are the keys and values of all layers, (2 * layers, N, T, C), and the number of
    tokens so far, (1, N).

    Args:
      vocab_size: number of tokens.
      sizes: widths, of which ``encoder_dim`` is C, heads and depth, dropout, and whether weights
        are tied.

    Raises:
      UserError: the heads do not divide the width, or weights are tied but the widths differ.
    """

    def __init__(self, vocab_size: int, sizes: TransformerOptions) -> None:
        super().__init__()
        d_model, embedding_dim, nhead = sizes.encoder_dim, sizes.embedding_dim, sizes.nhead
        if d_model % (2 * nhead):
            raise UserError(
                f"the width of a transformer must be a multiple of twice its heads, got {d_model} and {nhead}"
            )
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.input_embedding = nn.Embedding(vocab_size, embedding_dim)
        nn.init.normal_(self.input_embedding.weight, std=embedding_dim**-0.5)
        self.embed = nn.Linear(embedding_dim, d_model) if embedding_dim != d_model else nn.Identity()
        self.layers = nn.ModuleList(
            _Layer(d_model, nhead, sizes.dim_feedforward, sizes.dropout) for _ in range(sizes.num_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(sizes.dropout)
        self.output_linear = nn.Linear(d_model, vocab_size)
        _tie(
            self.output_linear, self.input_embedding, sizes.tie_weights, "the widths of layers and embeddings"
        )

    def hidden(
        self, tokens: Tensor, lens: Optional[Tensor], states: Optional[States]
    ) -> Tuple[Tensor, States]:
        """See :class:`NeuralLm`."""
        n = tokens.size(0)
        if states is None:
            done = torch.zeros(n, dtype=torch.int64, device=tokens.device)
            past = self.output_linear.weight.new_zeros(2 * len(self.layers), n, 0, self.d_model)
        else:
            past, done = states[0], states[1][0]
        x, kept = self.attend(tokens, done, past)
        if lens is None:
            return x, ()
        total = done + lens.to(done.device)
        return x, (_compact(torch.stack(kept), done, lens.to(done.device), past.size(2)), total[None])

    @staticmethod
    def join_states(parts: Sequence[States]) -> States:
        """See :class:`NeuralLm`; histories that differ in length are padded."""
        longest = max(past.size(2) for past, _ in parts)
        padded = [F.pad(past, (0, 0, 0, longest - past.size(2))) for past, _ in parts]
        return torch.cat(padded, dim=1), torch.cat([done for _, done in parts], dim=1)

    def attend(self, tokens: Tensor, done: Tensor, past: Tensor) -> Tuple[Tensor, List[Tensor]]:
        """Run all layers.

        Args:
          tokens: (N, L).
          done: (N,) number of tokens before them.
          past: (2 * layers, N, T, C) keys and values of those, each history's at its first
            positions.

        Returns:
          The input of the output layer, (N, L, C), and the layers' keys and values, each (N, T + L,
          C).
        """
        n, length = tokens.shape
        # A history shorter than the longest leaves a gap between its keys and the new ones; the
        # mask excludes it.
        positions = done[:, None] + torch.arange(length, device=tokens.device)
        x = self.embed(self.input_embedding(tokens)) * self.d_model**0.5
        x = self.dropout(x + sinusoids(positions, self.d_model).to(x.dtype))
        old = torch.arange(past.size(2), device=tokens.device)[None, None, :] < done[:, None, None]
        causal = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        mask = torch.cat([old.expand(n, length, past.size(2)), causal.expand(n, length, length)], dim=2)
        mask = mask[:, None]  # (N, 1, L, T + L)
        kept: List[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, keys, values = layer(x, mask, past[2 * i], past[2 * i + 1])
            kept += [keys, values]
        return self.norm(x), kept


def _compact(cache: Tensor, done: Tensor, lens: Tensor, past: int) -> Tensor:
    """Close the gap between each history's old and new keys.

    Args:
      cache: (K, N, past + L, C), old and new keys and values.
      done: (N,) number of old tokens of each history.
      lens: (N,) number of new tokens of each history.
      past: T, positions of the old ones.

    Returns:
      (K, N, longest history, C).
    """
    longest = int((done + lens).max())
    if past == 0:
        return cache[:, :, :longest]
    position = torch.arange(longest, device=done.device)[None, :]
    source = torch.where(position < done[:, None], position, past + position - done[:, None])
    source = source.clamp(max=cache.size(2) - 1)  # (N, longest)
    return cache.gather(2, source[None, :, :, None].expand(cache.size(0), -1, -1, cache.size(3)))


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Return sines and cosines (..., dim) of ``positions`` (...).

    The wavelengths go from 2 pi to 20000 pi: Vaswani et al. 2017, section 3.5, but with sine and
      cosine of a wavelength side by side.
    """
    rates = torch.exp(torch.arange(0, dim, 2, device=positions.device) * (-math.log(10000.0) / dim))
    angles = positions[..., None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class _Layer(nn.Module):
    """Self-attention and feed-forward, each after a layer norm and around a residual connection."""

    compiled = "always"

    def __init__(self, dim: int, nhead: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.nhead = nhead
        self.norm_attention = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)
        self.norm_feed_forward = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, dim_feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim_feedforward, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor, past_keys: Tensor, past_values: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Run the layer.

        Args:
          x: (N, L, C).
          mask: (N, 1, L, T + L), true where attended.
          past_keys, past_values: (N, T, C).

        Returns:
          The output (N, L, C), and keys and values (N, T + L, C).
        """
        query, keys, values = self.in_proj(self.norm_attention(x)).chunk(3, dim=-1)
        keys = torch.cat([past_keys.to(keys.dtype), keys], dim=1)
        values = torch.cat([past_values.to(values.dtype), values], dim=1)
        # (N, heads, L, C / heads), and for keys and values T + L instead of L
        q, k, v = [t.unflatten(-1, (self.nhead, -1)).transpose(1, 2) for t in (query, keys, values)]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2)
        x = x + self.dropout(self.out_proj(attended))
        return x + self.dropout(self.feed_forward(self.norm_feed_forward(x))), keys, values
