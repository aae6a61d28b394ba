"""Training data of token language models: a text in tokens as flat integer tensors in one file."""

from array import array
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import numpy as np
import torch

from asr_core.lm.symbols import text_lines
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike, atomic_path


class LmArchive(NamedTuple):
    """A text whose words are spelt in tokens.

    Saved as a dict of tensors under these names. The list number i of a ragged pair is
    ``values[offsets[i] : offsets[i + 1]]``.

    Attributes:
      words: int32, tokens of all different words, one after the other.
      words_offsets: (W + 1,) int64, where each word's tokens begin.
      sentences: int32, words (numbers 0 .. W-1) of all sentences, one after the other.
      sentences_offsets: (S + 1,) int64, where each sentence's words begin.
      sentence_lengths: (S,) int32, tokens of each sentence.
    """

    words: torch.Tensor
    words_offsets: torch.Tensor
    sentences: torch.Tensor
    sentences_offsets: torch.Tensor
    sentence_lengths: torch.Tensor

    @property
    def num_sentences(self) -> int:
        return len(self.sentence_lengths)

    def tokens_of(self, sentences: torch.Tensor) -> torch.Tensor:
        """The token ids (int64) of sentences (M,), one after the other; ``sentence_lengths[sentences]`` tells them apart."""
        words = _pick(self.sentences, self.sentences_offsets, sentences)
        return _pick(self.words, self.words_offsets, words.long()).long()

    def save(self, path: PathLike) -> None:
        """Write the archive, whole or not at all."""
        with atomic_path(path) as tmp:
            torch.save(self._asdict(), tmp)

    @classmethod
    def load(cls, path: PathLike) -> "LmArchive":
        """Read an archive.

        Raises:
          UserError: the file is missing or damaged, or something else.
        """
        if not Path(path).is_file():
            raise UserError(f"no language-model data {path}; the recipe's prepare.sh makes it in stage 8")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as e:  # unpickling garbage raises anything
            reason = str(e).strip().splitlines()
            raise UserError(
                f"{path} is damaged or no language-model data: {reason[0] if reason else type(e).__name__}"
            ) from e
        if not isinstance(content, dict) or set(content) != set(cls._fields):
            raise UserError(f"{path} is no language-model data of prepare_lm_data; make it again")
        return cls(**content)

    def sort(self) -> "LmArchive":
        """Longest sentences first, by tokens; equally long ones stay in order."""
        order = torch.sort(self.sentence_lengths, descending=True, stable=True).indices
        counts = self.sentences_offsets.diff()[order]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        sentences = _pick(self.sentences, self.sentences_offsets, order)
        return self._replace(
            sentences=sentences, sentences_offsets=offsets, sentence_lengths=self.sentence_lengths[order]
        )

    def statistics(self) -> str:
        """A few lines on sizes and lengths, for people."""
        lengths = self.sentence_lengths.numpy()
        shown = (
            [f"{p}%: {int(np.percentile(lengths, p, method='higher'))}" for p in (25, 50, 75, 90, 99, 100)]
            if len(lengths)
            else []
        )
        return (
            f"sentences: {len(lengths)}\nwords: {len(self.sentences)}\ndifferent words: {len(self.words_offsets) - 1}\n"
            f"tokens: {int(lengths.sum())}\ntokens in a sentence: mean {lengths.mean() if len(lengths) else 0:.2f}, {', '.join(shown)}\n"
        )


def _pick(values: torch.Tensor, offsets: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """``values[offsets[i] : offsets[i + 1]]`` of all ``items`` i, one after the other."""
    begin = offsets[items]
    counts = offsets[items + 1] - begin
    shift = begin - (counts.cumsum(0) - counts)
    return values[torch.arange(int(counts.sum())) + torch.repeat_interleave(shift, counts)]


def build_archive(text: PathLike, tokenizer: Tokenizer) -> LmArchive:
    """Spell each different word of a text once, and number the words of its sentences.

    Raises:
      UserError: the text is missing, has no words, or the tokenizer can only decode.
    """
    numbers: Dict[str, int] = {}
    sentences, ends = array("i"), array("q", [0])
    for _, words in text_lines(text):
        sentences.extend([numbers.setdefault(word, len(numbers)) for word in words])
        ends.append(len(sentences))
    if not sentences:
        raise UserError(f"{text} has no words")
    spelt = tokenizer.encode(list(numbers))
    lengths = np.array([len(tokens) for tokens in spelt], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    words_of = np.frombuffer(sentences, dtype=np.int32)
    bounds = np.frombuffer(ends, dtype=np.int64)
    running = np.concatenate([[0], np.cumsum(lengths[words_of])])
    return LmArchive(
        words=torch.tensor([t for tokens in spelt for t in tokens], dtype=torch.int32),
        words_offsets=torch.from_numpy(offsets),
        sentences=torch.from_numpy(words_of.copy()),
        sentences_offsets=torch.from_numpy(bounds.copy()),
        sentence_lengths=torch.from_numpy((running[bounds[1:]] - running[bounds[:-1]]).astype(np.int32)),
    )


def batches_of(lengths: Sequence[int], batch_size: int, longest: int) -> List[List[int]]:
    """Sentences in batches of at most ``batch_size``, similar lengths together; those over ``longest`` tokens are left out.

    Args:
      lengths: tokens of each sentence.
      batch_size: sentences in a batch.
      longest: the longest sentence that is used.

    Returns:
      Indices of sentences; the same for the same arguments.
    """
    array_of = np.asarray(lengths)
    order = np.argsort(-array_of, kind="stable")
    order = order[array_of[order] <= longest]
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
