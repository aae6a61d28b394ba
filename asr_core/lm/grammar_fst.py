"""Grammars G as OpenFst text: acceptors of word ids whose back-off arcs read ``#0``.

Mohri, Pereira and Riley, "Speech recognition with weighted finite-state transducers", 2008, section
3.
"""

import logging
from array import array
from pathlib import Path
from typing import List, Mapping, Optional

import numpy as np

from asr_core.lm.ngram import NO_FINAL, Automaton, NgramLm
from asr_core.lm.symbols import BOS, DISAMBIG, read_symbols, text_lines
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path
from asr_core.utils.paths import PathLike

_LINES_AT_ONCE = 1 << 16  # that are joined before they are written


def convert_arpa(
    arpa: PathLike, symbols: PathLike, target: PathLike, max_order: int = 0, disambig: str = DISAMBIG
) -> None:
    """Write the ARPA model of one file as a grammar to another.

    Args:
      arpa: the language model, ``.gz`` or plain.
      symbols: ``words.txt`` or ``tokens.txt``; n-grams with other words are left out.
      target: the OpenFst text to write.
      max_order: leave out longer n-grams; 0: keep all.
      disambig: the symbol on back-off arcs.

    Raises:
      UserError: a file is missing or damaged, or the symbols lack ``disambig``.
    """
    table = read_symbols(symbols)
    states = write_openfst_text(NgramLm.from_arpa(arpa, table, max_order), target, table, disambig)
    logging.info("%s: %d states", target, states)


def write_openfst_text(
    lm: NgramLm, path: PathLike, symbols: Mapping[str, int], disambig: str = DISAMBIG
) -> int:
    """Write ``lm`` as OpenFst text: ``source dest ilabel olabel cost`` and ``state cost`` lines.

    Costs are -ln p. The start state (after ``<s>``) is number 0. ``</s>`` is no arc but the cost of
    ending; words outside ``symbols`` have no arcs.

    Args:
      lm: a model whose word ids are those of ``symbols``.
      path: the file.
      symbols: ``words.txt`` (or ``tokens.txt``) as a mapping.
      disambig: the symbol on back-off arcs.

    Returns:
      The number of states.

    Raises:
      UserError: ``symbols`` lacks ``disambig``.
    """
    if disambig not in symbols:
        raise UserError(f"the symbol table has no {disambig}, which back-off arcs need")
    a = lm.automaton
    keep = _known_words(a, symbols, disambig)[a.word]
    source = np.repeat(np.arange(lm.num_states), np.diff(a.begin))[keep]
    word, dest, weight = a.word[keep], a.dest[keep], a.weight[keep]
    reached = _reached(a, source, dest)
    number = np.cumsum(reached) - 1
    number = np.where(number < number[a.start], number + 1, number)
    number[a.start] = 0
    states = np.flatnonzero(reached)
    begin = np.searchsorted(source, np.arange(lm.num_states + 1))
    with atomic_path(path) as tmp, open(tmp, "w", encoding="utf-8") as f:
        pending: List[str] = []
        for state in [a.start, *states[states != a.start].tolist()]:
            here = number[state]
            for arc in range(begin[state], begin[state + 1]):
                pending.append(
                    f"{here}\t{number[dest[arc]]}\t{word[arc]}\t{word[arc]}\t{_cost(weight[arc])}\n"
                )
            if a.backoff_state[state] >= 0:
                back = number[a.backoff_state[state]]
                pending.append(f"{here}\t{back}\t{symbols[disambig]}\t0\t{_cost(a.backoff_weight[state])}\n")
            if a.final[state] != NO_FINAL:
                pending.append(f"{here}\t{_cost(a.final[state])}\n")
            if len(pending) >= _LINES_AT_ONCE:
                f.writelines(pending)
                pending.clear()
        f.writelines(pending)
    return len(states)


def _known_words(a: Automaton, symbols: Mapping[str, int], disambig: str) -> np.ndarray:
    """Return whether the symbols have each word id of the automaton as a word, (V,) boolean."""
    known = np.zeros(int(a.word.max(initial=0)) + 1, dtype=bool)
    ids = [i for word, i in symbols.items() if i < len(known) and word not in (BOS, disambig)]
    known[np.array(ids, dtype=np.int64)] = True
    return known


def _cost(log_prob: np.floating) -> str:
    return f"{0.0 - float(log_prob):.7g}"


def _reached(a: Automaton, source: np.ndarray, dest: np.ndarray) -> np.ndarray:
    """Return which states the start state leads to, by arcs and back-off, (S,) boolean."""
    reached = np.zeros(len(a.backoff_state), dtype=bool)
    reached[[a.start, a.root]] = True
    count = 0
    while count != (count := int(reached.sum())):
        reached[dest[reached[source]]] = True
        back = a.backoff_state[reached]
        reached[back[back >= 0]] = True
    return reached


def read_openfst_text(
    path: PathLike, disambig_id: int, symbols: Optional[Mapping[str, int]] = None
) -> NgramLm:
    """Read a grammar that :func:`write_openfst_text` (or kaldilm) wrote.

    Args:
      path: the file; the source of its first line is the start state.
      disambig_id: label of the back-off arcs.
      symbols: the symbol table, for the ids of ``</s>`` and ``<unk>``.

    Raises:
      UserError: the file is missing, a line is damaged, or it is no n-gram model with one back-off
        arc per history.
    """
    path = Path(path)
    arcs, back, finals = array("i"), array("i"), array("i")
    arc_cost, back_cost, final_cost = array("f"), array("f"), array("f")
    start = -1
    for number, fields in text_lines(path):
        try:
            labels = [int(field) for field in fields[: 4 if len(fields) >= 4 else 1]]
            cost = float(fields[-1]) if len(fields) in (2, 5) else 0.0
            if len(fields) not in (1, 2, 4, 5) or min(labels) < 0:
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}:{number}: expected 'source dest ilabel olabel cost' or 'state cost', "
                f"got {' '.join(fields)!r}"
            ) from None
        start = labels[0] if start < 0 else start
        if len(labels) == 1:
            finals.extend(labels)
            final_cost.append(cost)
        elif labels[2] == disambig_id:
            back.extend(labels[:2])
            back_cost.append(cost)
        elif labels[2] != labels[3]:
            raise UserError(
                f"{path}:{number}: labels {labels[2]} and {labels[3]} differ: "
                f"this is no acceptor with back-off label {disambig_id}"
            )
        else:
            arcs.extend(labels[:3])
            arc_cost.append(cost)
    if start < 0:
        raise UserError(f"{path} is empty")
    try:
        automaton = assemble(
            start,
            arcs=_table(arcs, 3),
            weight=-np.array(arc_cost),
            back=_table(back, 2),
            back_weight=-np.array(back_cost),
            finals=_table(finals, 1),
            final=-np.array(final_cost),
        )
    except UserError as e:
        raise UserError(f"{path}: {e}") from e
    return NgramLm(automaton, symbols or {})


def _table(values: "array[int]", columns: int) -> np.ndarray:
    return np.array(values, dtype=np.int64).reshape(-1, columns)


def assemble(
    start: int,
    *,
    arcs: np.ndarray,
    weight: np.ndarray,
    back: np.ndarray,
    back_weight: np.ndarray,
    finals: np.ndarray,
    final: np.ndarray,
) -> Automaton:
    """Build an automaton of A arcs.

    Args:
      start: the start state.
      arcs: (A, 3) source, destination and label; weight: (A,) their log-probabilities.
      back: (B, 2) source and destination of back-off arcs; back_weight: (B,) their log weights.
      finals: (F, 1) final states; final: (F,) their log-probabilities.

    Raises:
      UserError: a state has two arcs of one label, or the back-off arcs are not an n-gram's.
    """
    states = int(max(arcs[:, :2].max(initial=start), back.max(initial=start), finals.max(initial=start))) + 1
    order = np.lexsort((arcs[:, 2], arcs[:, 0]))
    arcs, weight = arcs[order], weight[order]
    same = (np.diff(arcs[:, 0]) == 0) & (np.diff(arcs[:, 2]) == 0)
    if same.any():
        source, _, label = arcs[int(np.argmax(same))]
        raise UserError(f"state {source} has two arcs with label {label}")
    backoff_state = _backoff_states(back, states)
    backoff_weight = np.zeros(states, dtype=np.float32)
    final_weight = np.full(states, NO_FINAL, dtype=np.float32)
    backoff_weight[back[:, 0]] = back_weight
    final_weight[finals[:, 0]] = final
    return Automaton(
        begin=np.searchsorted(arcs[:, 0], np.arange(states + 1)).astype(np.int64),
        word=arcs[:, 2].astype(np.int32),
        dest=arcs[:, 1].astype(np.int32),
        weight=weight.astype(np.float32),
        backoff_state=backoff_state,
        backoff_weight=backoff_weight,
        final=final_weight,
        start=start,
        root=int(np.flatnonzero(backoff_state < 0)[0]),
    )


def _backoff_states(back: np.ndarray, states: int) -> np.ndarray:
    """Return the back-off state of each state, (S,); -1 for the one without.

    Raises:
      UserError: there are several such states, a state has several back-off arcs, or they form a
        circle.
    """
    backoff_state = np.full(states, -1, dtype=np.int32)
    backoff_state[back[:, 0]] = back[:, 1]
    roots = np.flatnonzero(backoff_state < 0)
    if len(np.unique(back[:, 0])) != len(back) or len(roots) != 1:
        raise UserError("every state but one must have one back-off arc; is the back-off label right?")
    furthest = np.where(backoff_state < 0, roots[0], backoff_state)
    for _ in range(states.bit_length()):  # each round doubles the steps
        furthest = furthest[furthest]
    if (furthest != roots[0]).any():
        raise UserError("back-off arcs form a circle")
    return backoff_state
