"""A word n-gram in searches over tokens: a word is scored as soon as the next one begins."""

from typing import Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.states import KEY_FACTOR, States
from asr_core.lm.arpa import LN10
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import BOS, EOS, UNKNOWN
from asr_core.text.tokenizer import BLANK, SOS_EOS, UNK, WORD_START
from asr_core.utils.errors import UserError

# The hash of a word is a polynomial in KEY_FACTOR modulo 2^64 of its bytes plus one; 0 is no word.
_MASK = (1 << 64) - 1


class WordWeights(NamedTuple):
    """Weights of a word n-gram.

    Attributes:
      scale: weight of the natural log-probability.
      word_score: added for each word, against the n-gram's preference for few words.
      unknown_offset: added to the logarithm to base 10 of the probability of a word that the n-gram
        does not know.
    """

    scale: float = 0.5
    word_score: float = 1.5
    unknown_offset: float = -10.0


class WordNgramScorer(Scorer):
    """``scale * ln p(word | words before) + word_score`` for each word.

    The score of a word comes with the token that opens the next word, or with the end of the
    utterance; then the end of the sentence is scored, too, if the n-gram knows it. (The terms and
    defaults are pyctcdecode's, which also guesses at unfinished words.) The states (N, B) are the
    n-gram's, and the hash of the unfinished word.

    Args:
      lm: over words; its symbols give their spelling.
      pieces: the tokens by id; a word opens with SentencePiece's mark.
      weights: see there.
      device: device of the search.

    Attributes:
      lm, weights: as given.
      opens: (V,) whether each token begins a word.
      hash: (V,) uint64, of the characters that each token adds.
      factor: (V,) uint64, of the hash of what comes before the token.
      known, ids: (W,) hashes of the words, ascending, and their ids.

    Raises:
      UserError: no token opens a word.
    """

    def __init__(
        self, lm: NgramLm, pieces: Sequence[str], weights: WordWeights, device: torch.device
    ) -> None:
        self.lm, self.weights, self._device = lm, weights, device
        spelled = [_spelling(piece) for piece in pieces]
        if not any(opens for opens, _ in spelled):
            raise UserError(
                f"no token begins with {WORD_START}, so a word n-gram cannot know where words end"
            )
        self.opens = np.array([opens for opens, _ in spelled])  # (V,)
        self.hash = np.array([_hash(text) for _, text in spelled], dtype=np.uint64)  # (V,)
        factors = [pow(KEY_FACTOR, len(text), 1 << 64) for _, text in spelled]
        self.factor = np.array(factors, dtype=np.uint64)  # (V,), of what comes before the token
        self.known, self.ids = _words({word: i for word, i in lm.symbols.items() if lm.is_known(i)})
        self._eos: Optional[int] = lm.symbols.get(EOS)

    def start(self, num: int, beam: int) -> States:
        """Return the states after the start of a sentence, see :class:`Scorer`."""
        first = self.lm.initial_state(bos=True)
        state = torch.full((num, beam), first, dtype=torch.int64, device=self._device)
        return state, torch.zeros_like(state)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score ``token`` (N, B), see :class:`Scorer`."""
        state, word, ids, grows = (x.cpu().numpy().reshape(-1) for x in (*states, token, emits))
        word, opens = word.view(np.uint64), self.opens[ids] & grows  # (N * B,)
        score, state = self._close(state, word, opens & (word != 0))
        grown = np.where(opens, np.uint64(0), word) * self.factor[ids] + self.hash[ids]
        after = np.where(grows, grown, word).view(np.int64)
        shaped = (torch.from_numpy(x).to(self._device).view(token.shape) for x in (state, after))
        return self._scores(score, token.shape), tuple(shaped)

    def finish(self, states: States) -> Tensor:
        """Score the last word (N, B) and the end of the sentence, see :class:`Scorer`."""
        state, word = (x.cpu().numpy().reshape(-1) for x in states)
        word = word.view(np.uint64)
        score, state = self._close(state, word, word != 0)
        if self._eos is not None:
            end, _ = self.lm.score_batch(state, np.full(len(state), self._eos))
            score += self.weights.scale * end
        return self._scores(score, states[0].shape)

    def _scores(self, score: np.ndarray, shape: torch.Size) -> Tensor:
        """Return scores (N * B,) as a tensor (N, B)."""
        return torch.from_numpy(score).to(self._device, torch.float32).view(shape)

    def _close(self, state: np.ndarray, word: np.ndarray, where: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Score the words that end.

        Args:
          state: (M,) of the n-gram.
          word: (M,) hashes.
          where: (M,), true where the word ends.

        Returns:
          Scores (M,), and the n-gram's states after the words.
        """
        score, state, (rows,) = np.zeros(len(word)), state.copy(), np.nonzero(where)
        if len(rows):
            at = np.searchsorted(self.known, word[rows]).clip(max=len(self.known) - 1)
            known = self.known[at] == word[rows]
            log_prob, state[rows] = self.lm.score_batch(state[rows], np.where(known, self.ids[at], -1))
            offset = np.where(known, 0.0, self.weights.unknown_offset * LN10)
            score[rows] = self.weights.scale * (log_prob + offset) + self.weights.word_score
        return score, state


def _spelling(piece: str) -> Tuple[bool, bytes]:
    """Return whether a token begins a word, and the characters that it adds."""
    if piece in (BLANK, SOS_EOS):
        return False, b""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):  # a byte, such as <0xC3>
        return False, bytes([int(piece[3:5], 16)])
    opens = piece.startswith(WORD_START) or piece == UNK
    return opens, piece.lstrip(WORD_START).encode()


def _hash(text: Iterable[int]) -> int:
    value = 0
    for byte in text:
        value = (value * KEY_FACTOR + byte + 1) & _MASK
    return value


def _words(symbols: Mapping[str, int]) -> Tuple[np.ndarray, np.ndarray]:
    """Return the hashes of the words, ascending, and their ids, both (W,)."""
    special = (BOS, EOS, *UNKNOWN)
    words: List[Tuple[int, int]] = sorted(
        (_hash(word.encode()), i) for word, i in symbols.items() if word not in special
    )
    hashes, ids = [h for h, _ in words], [i for _, i in words]
    return np.array(hashes or [0], dtype=np.uint64), np.array(ids or [-1], dtype=np.int64)
