"""Training data of token language models: a text in tokens, as flat integer tensors in one file."""

import logging
from array import array
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, cast

import numpy as np
import torch

from asr_core.lm.symbols import text_lines
from asr_core.text import pieces
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, write_text_atomic
from asr_core.utils.k2_files import Ragged, read_k2_file
from asr_core.utils.lock import hold_output
from asr_core.utils.paths import PathLike

_ICEFALL = {"words", "sentences", "sentence_lengths"}


class LmArchive(NamedTuple):
    """A text whose words are spelt in tokens; W different words, S sentences.

    It is saved as a dict of tensors under these names. List number i of a ragged pair is
    ``values[offsets[i] : offsets[i + 1]]``.

    Attributes:
      words: (sum of lengths,) int32, tokens of all different words, one after the other.
      words_offsets: (W + 1,) int64, where each word's tokens begin.
      sentences: (sum of lengths,) int32, words (numbers 0 to W - 1) of all sentences.
      sentences_offsets: (S + 1,) int64, where each sentence's words begin.
      sentence_lengths: (S,) int32, tokens of each sentence.
      pieces: the tokens by id; None for archives that do not record them.
    """

    words: torch.Tensor
    words_offsets: torch.Tensor
    sentences: torch.Tensor
    sentences_offsets: torch.Tensor
    sentence_lengths: torch.Tensor
    pieces: Optional[List[str]] = None

    @property
    def num_sentences(self) -> int:
        """S, the number of sentences."""
        return len(self.sentence_lengths)

    def tokens_of(self, sentences: torch.Tensor) -> torch.Tensor:
        """Return the token ids (sum of lengths,) int64 of sentences (M,), one after the other.

        Their lengths are ``sentence_lengths[sentences]``.
        """
        words = _pick(self.sentences, self.sentences_offsets, sentences)
        return _pick(self.words, self.words_offsets, words.long()).long()

    def save(self, path: PathLike) -> None:
        """Write the archive, whole or not at all."""
        content = {name: value for name, value in self._asdict().items() if value is not None}
        with atomic_path(path) as tmp:
            torch.save(content, tmp)

    @classmethod
    def load(cls, path: PathLike) -> "LmArchive":
        """Read an archive, also one that icefall prepared, which holds ragged tensors of k2.

        Raises:
          UserError: the file is missing, damaged, or something else.
        """
        if not Path(path).is_file():
            raise UserError(f"no language-model data {path}; the recipe's prepare.sh makes it in stage 8")
        content = read_k2_file(path)
        try:
            return cls(**_of_icefall(content)) if set(content) == _ICEFALL else cls._of_dict(content)
        except (TypeError, ValueError) as e:
            raise UserError(f"{path} is no language-model data of prepare_lm_data: {e}; make it again") from e

    @classmethod
    def _of_dict(cls, content: Mapping[str, object]) -> "LmArchive":
        """Check and take what :meth:`save` wrote: tensors of whole numbers, perhaps the tokens."""
        tensors = set(cls._fields) - {pieces.KEY}
        if not tensors <= set(content) <= set(cls._fields):
            raise ValueError(f"it has {', '.join(map(str, content)) or 'nothing'}")
        for name in sorted(tensors):
            value = content[name]
            if not isinstance(value, torch.Tensor) or value.dim() != 1 or value.is_floating_point():
                raise ValueError(f"{name} is no list of whole numbers")
        return cls(**cast(Dict[str, Any], {**content, pieces.KEY: pieces.recorded_pieces(content)}))

    def sort(self) -> "LmArchive":
        """Return the archive with the longest sentences, in tokens, first; ties stay in order."""
        order = torch.sort(self.sentence_lengths, descending=True, stable=True).indices
        counts = self.sentences_offsets.diff()[order]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        sentences = _pick(self.sentences, self.sentences_offsets, order)
        lengths = self.sentence_lengths[order]
        return self._replace(sentences=sentences, sentences_offsets=offsets, sentence_lengths=lengths)

    def statistics(self) -> str:
        """Return a few lines about sizes and lengths, for people."""
        lengths = self.sentence_lengths.numpy()
        mean, shown = 0.0, []
        if len(lengths):
            mean = lengths.mean()
            for p in (25, 50, 75, 90, 99, 100):
                shown.append(f"{p}%: {int(np.percentile(lengths, p, method='higher'))}")
        return (
            f"sentences: {len(lengths)}\n"
            f"words: {len(self.sentences)}\n"
            f"different words: {len(self.words_offsets) - 1}\n"
            f"tokens: {int(lengths.sum())}\n"
            f"tokens in a sentence: mean {mean:.2f}, {', '.join(shown)}\n"
        )


def _of_icefall(content: Mapping[str, object]) -> Dict[str, Any]:
    """Return the fields of an archive of icefall."""
    words, sentences, lengths = (content[name] for name in ("words", "sentences", "sentence_lengths"))
    if not isinstance(words, Ragged) or not isinstance(sentences, Ragged):
        raise ValueError("words and sentences are no ragged tensors of k2")
    if not isinstance(lengths, torch.Tensor):
        raise ValueError("sentence_lengths is no tensor")
    if len(words.splits) != 1 or len(sentences.splits) != 1:
        raise ValueError("words and sentences have not two axes")
    offsets, ends = words.splits[0].long(), sentences.splits[0].long()
    if (
        len(sentences.values)
        and not 0 <= int(sentences.values.min()) <= int(sentences.values.max()) < len(offsets) - 1
    ):
        raise ValueError("a sentence has a word that is not among the words")
    running = torch.zeros(len(sentences.values) + 1, dtype=torch.int64)
    torch.cumsum(offsets.diff()[sentences.values.long()], 0, out=running[1:])
    if not torch.equal(running[ends].diff(), lengths.long()):
        raise ValueError("the lengths of sentences are not those of their words")
    return {
        "words": words.values.int(),
        "words_offsets": offsets,
        "sentences": sentences.values.int(),
        "sentences_offsets": ends,
        "sentence_lengths": lengths.int(),
    }


def _pick(values: torch.Tensor, offsets: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Return ``values[offsets[i] : offsets[i + 1]]`` of all ``items`` i (M,), concatenated."""
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
        pieces=tokenizer.pieces,
    )


def write_archives(
    text: PathLike,
    bpe_model: PathLike,
    target: PathLike,
    *,
    in_order: PathLike = "",
    statistics: PathLike = "",
) -> None:
    """Write a text as an archive.

    Args:
      text: one sentence a line.
      bpe_model: the tokenizer.
      target: the archive to write.
      in_order: also write it with the longest sentences first; "": do not.
      statistics: also write a text file about sizes and lengths; "": do not.

    Raises:
      UserError: see :func:`build_archive`.
    """
    with hold_output(target, "preparation of language-model data", "choose another --lm-archive"):
        archive = build_archive(text, Tokenizer.load(bpe_model))
        archive.save(target)
        if in_order:
            archive.sort().save(in_order)
        if statistics:
            write_text_atomic(statistics, archive.statistics())
    logging.info("%s: %s", target, archive.statistics().replace("\n", "; "))


def batches_of(lengths: Sequence[int], batch_size: int, longest: int) -> List[List[int]]:
    """Group sentences of similar lengths into batches.

    Args:
      lengths: tokens of each sentence.
      batch_size: most sentences of a batch.
      longest: sentences of more tokens are left out.

    Returns:
      Indices of the sentences of each batch, the longest first; the same for the same arguments.
    """
    array_of = np.asarray(lengths)
    order = np.argsort(-array_of, kind="stable")
    order = order[array_of[order] <= longest]
    return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
