"""Pronunciation lexica: words in phones or tokens, disambiguation, and L as OpenFst text."""

import itertools
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Collection, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from asr_core.lm.symbols import DISAMBIG, EPS, text_lines
from asr_core.text.tokenizer import is_disambig
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, write_text_atomic
from asr_core.utils.paths import PathLike

# Words, each with the tokens of one pronunciation; a word may occur more than once.
Lexicon = List[Tuple[str, List[str]]]


class Arc(NamedTuple):
    """An arc of L, which reads a token and writes a word; either may be ``<eps>``."""

    source: int
    dest: int
    token: str
    word: str
    cost: float


def read_lexicon(path: PathLike, phones: bool = False) -> Lexicon:
    """Read a lexicon of lines ``word token token ...``; repeated lines count once.

    Args:
      path: the file.
      phones: refuse ``#0``, ``#1``, ... as tokens; pieces of words may be called so.

    Raises:
      UserError: the file is missing or empty, or a line has no pronunciation or a reserved symbol.
    """
    lexicon: Dict[Tuple[str, ...], None] = {}
    for number, fields in text_lines(path):
        if len(fields) < 2:
            raise UserError(f"{path}:{number}: expected a word and its tokens, got {' '.join(fields)!r}")
        if EPS in fields or (phones and any(map(is_disambig, fields))):
            raise UserError(f"{path}:{number}: {EPS}, #0, #1, ... are reserved, got {' '.join(fields)!r}")
        lexicon[tuple(fields)] = None
    if not lexicon:
        raise UserError(f"{path} has no words")
    return [(entry[0], list(entry[1:])) for entry in lexicon]


def write_lexicon(path: PathLike, lexicon: Lexicon) -> None:
    """Write a lexicon, whole or not at all."""
    write_text_atomic(path, "".join(f"{word} {' '.join(tokens)}\n" for word, tokens in lexicon))


def add_disambig_symbols(lexicon: Lexicon, taken: Collection[str] = ()) -> Tuple[Lexicon, int]:
    """Disambiguate words that sound alike, or like the beginning of another.

    The first of each such group gets ``#1`` at its end, the next ``#2``, and so on, so that the
    lexicon can be determinised. Mohri, Pereira and Riley, "Speech recognition with weighted
    finite-state transducers", 2008, section 3.3.

    Args:
      lexicon: words and their tokens.
      taken: tokens, whose names are left out.

    Returns:
      The lexicon with these symbols, and how many of them there are besides ``#0``.
    """
    times = Counter(tuple(tokens) for _, tokens in lexicon)
    beginnings = {pron[:i] for pron in times for i in range(1, len(pron))}
    symbols = disambig_symbols(max(times.values(), default=0) + 1, taken)
    used: "Counter[Tuple[str, ...]]" = Counter()
    out: Lexicon = []
    for word, tokens in lexicon:
        pron = tuple(tokens)
        if times[pron] > 1 or pron in beginnings:
            used[pron] += 1
            tokens = [*tokens, symbols[used[pron]]]
        out.append((word, list(tokens)))
    return out, max(used.values(), default=0)


def phone_table(lexicon: Lexicon, max_disambig: int) -> List[str]:
    """Return the symbols of a phone lexicon's ``tokens.txt``.

    They are ``<eps>``, the phones sorted, ``#0`` ... ``#max_disambig``.
    """
    phones = {token for _, tokens in lexicon for token in tokens}
    return [EPS, *sorted(phones), *disambig_symbols(max_disambig)]


def disambig_symbols(number: int, taken: Collection[str] = ()) -> List[str]:
    """Return ``#0`` and ``number`` more of ``#1``, ``#2``, ..., those that are ``taken`` left out.

    Raises:
      UserError: ``#0`` is taken, the symbol on back-off arcs.
    """
    if DISAMBIG in taken:
        raise UserError(
            f"{DISAMBIG} is a token, and in graphs the symbol of back-off arcs: take {DISAMBIG!r} out of the "
            "text that the tokenizer is trained on, or train another --vocab-size"
        )
    names = (name for i in itertools.count(1) if (name := f"#{i}") not in taken)
    return [DISAMBIG, *itertools.islice(names, number)]


def lexicon_arcs(lexicon: Lexicon, silence: str = "", silence_prob: float = 0.5) -> Tuple[List[Arc], int]:
    """Return the arcs of L and its loop state, where words begin and end, and the only final state.

    With ``silence``, state 0 is the start, 1 the loop, and 2 precedes an optional silence, which is
    possible at the start and after every word. Without, state 0 is both start and loop.

    Args:
      lexicon: words and their tokens.
      silence: the token of silence; "": none.
      silence_prob: probability of silence, in (0, 1).
    """
    arcs: List[Arc] = []
    loop, ends = 0, [(0, 0.0)]
    following = 1
    if silence:
        loop, before_silence, following = 1, 2, 3
        ends = [(loop, -math.log(1 - silence_prob)), (before_silence, -math.log(silence_prob))]
        arcs += [Arc(0, dest, EPS, EPS, cost) for dest, cost in ends]
        arcs.append(Arc(before_silence, loop, silence, EPS, 0.0))
    for word, tokens in lexicon:
        state, output = loop, word
        for token in tokens[:-1]:
            arcs.append(Arc(state, following, token, output, 0.0))
            state, output = following, EPS
            following += 1
        arcs += [Arc(state, dest, tokens[-1], output, cost) for dest, cost in ends]
    return arcs, loop


def with_self_loops(arcs: Sequence[Arc]) -> List[Arc]:
    """Add a ``#0`` loop at each state that writes a word, for a grammar's back-off arcs."""
    writing = sorted({arc.source for arc in arcs if arc.word != EPS})
    return [*arcs, *(Arc(state, state, DISAMBIG, DISAMBIG, 0.0) for state in writing)]


def openfst_text(arcs: Iterable[Arc], final: int, tokens: Mapping[str, int], words: Mapping[str, int]) -> str:
    """Return arcs as OpenFst text.

    Lines ``source dest ilabel olabel cost``, sorted by source, precede the line of the final state.
    ``<eps>`` is label 0 on both sides, whatever ``tokens`` calls its symbol 0.

    Raises:
      UserError: a token or word is not in its table.
    """
    lines = []
    try:
        for arc in sorted(arcs, key=lambda arc: arc.source):
            token = 0 if arc.token == EPS else tokens[arc.token]
            word = 0 if arc.word == EPS else words[arc.word]
            lines.append(f"{arc.source}\t{arc.dest}\t{token}\t{word}\t{arc.cost:.7g}\n")
    except KeyError as e:
        raise UserError(f"the lexicon has {e.args[0]!r}, which is in no symbol table") from None
    return "".join([*lines, f"{final}\t0\n"])


def write_graphs(
    lang_dir: PathLike,
    lexicon: Lexicon,
    disambiguated: Lexicon,
    tokens: Mapping[str, int],
    words: Mapping[str, int],
    silence: str = "",
) -> None:
    """Write ``L.fst.txt`` and ``L_disambig.fst.txt``, the latter with ``#0`` loops."""
    arcs, loop = lexicon_arcs(lexicon, silence)
    write_text_atomic(Path(lang_dir) / "L.fst.txt", openfst_text(arcs, loop, tokens, words))
    arcs, loop = lexicon_arcs(disambiguated, silence)
    write_text_atomic(
        Path(lang_dir) / "L_disambig.fst.txt", openfst_text(with_self_loops(arcs), loop, tokens, words)
    )


def write_k2_graphs(lang_dir: PathLike) -> bool:
    """Write ``L.pt`` and ``L_disambig.pt`` if k2 is installed; return whether it is."""
    try:
        import k2
        import torch
    except ImportError:
        return False
    for name in ("L", "L_disambig"):
        text = (Path(lang_dir) / f"{name}.fst.txt").read_text(encoding="utf-8")
        fsa = k2.Fsa.from_openfst(text, acceptor=False)
        with atomic_path(Path(lang_dir) / f"{name}.pt") as tmp:
            torch.save(fsa.as_dict(), tmp)
    return True


def first_pronunciations(lexicon: Lexicon) -> Dict[str, List[str]]:
    """Return the tokens of each word; where it has more than one pronunciation, the first."""
    out: Dict[str, List[str]] = {}
    for word, tokens in lexicon:
        out.setdefault(word, tokens)
    return out


def spelled_lines(lexicon: PathLike, text: PathLike, oov: str = "<UNK>") -> Iterator[str]:
    """Yield the lines of a text with each word replaced by the tokens of its first pronunciation.

    Args:
      lexicon: a lexicon's file.
      text: one sentence a line, words separated by spaces.
      oov: the lexicon's word that stands for words it does not have.

    Raises:
      UserError: a file is missing or malformed, or the lexicon has no ``oov``.
    """
    entries = first_pronunciations(read_lexicon(lexicon))
    spelled = {word: " ".join(tokens) for word, tokens in entries.items()}
    if oov not in spelled:
        raise UserError(f"{lexicon} has no {oov}: give --oov, the word that stands for unknown ones")
    for _, words in text_lines(text):
        yield " ".join([spelled.get(word, spelled[oov]) for word in words]) + "\n"


def write_spelled_text(lexicon: PathLike, text: PathLike, target: PathLike = "", oov: str = "<UNK>") -> None:
    """Write the lines of :func:`spelled_lines` to a file; ``target`` "": to standard output."""
    lines = spelled_lines(lexicon, text, oov)
    if not target:
        sys.stdout.writelines(lines)
        return
    with atomic_path(target) as tmp, open(tmp, "w", encoding="utf-8") as f:
        f.writelines(lines)
