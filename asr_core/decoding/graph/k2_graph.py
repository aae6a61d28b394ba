"""Graphs that icefall prepared with k2: ``LG.pt``, ``HLG.pt``, ``G_3_gram.pt``, ``L_disambig.pt``.

k2 keeps a graph as arcs (source, destination, label, score) of 32-bit words, the last of them a
float. Arcs of label -1 end in the one final state, the highest. State 0 is the start.
"""

from pathlib import Path
from typing import Dict, List, Mapping, Tuple

import numpy as np
from torch import Tensor

from asr_core.decoding.graph.fsa import Fsa, FsaArcs
from asr_core.lm.grammar_fst import assemble
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import DISAMBIG
from asr_core.utils.errors import UserError
from asr_core.utils.k2_files import Ragged, read_k2_file
from asr_core.utils.paths import PathLike

_END = -1  # the label of arcs to the final state


def read_k2_graph(path: PathLike, shift: int = 0) -> Fsa:
    """Read a graph that was saved with ``torch.save(fsa.as_dict())``.

    An arc that writes several words becomes several arcs, all but the first of which read nothing.

    Args:
      path: the file.
      shift: added to the labels: 1 for labels of frames, whose 0 is the blank. The label 0 of the
        result reads nothing.

    Raises:
      UserError: the file is missing, damaged, or no graph of k2.
    """
    content = read_k2_file(path)
    try:
        return _graph(content, shift)
    except UserError as e:
        raise UserError(f"{path}: {e}") from e


def prepared_graph(folder: PathLike, name: str) -> Path:
    """Return the file of a graph: ``<name>.pt`` of icefall where it is alone, else ours."""
    ours, of_icefall = Path(folder) / f"{name}.fst.txt", Path(folder) / f"{name}.pt"
    return of_icefall if of_icefall.is_file() and not ours.is_file() else ours


def read_prepared_graph(path: Path, k2_shift: int = 0) -> Fsa:
    """Read a graph in OpenFst text, or one of k2 whose labels are raised by ``k2_shift``.

    Raises:
      UserError: the file is missing or damaged.
    """
    return read_k2_graph(path, k2_shift) if path.suffix == ".pt" else Fsa.read(path)


def _graph(content: Mapping[str, object], shift: int) -> Fsa:
    arcs = k2_arcs(content)
    words, first = _words(content.get("aux_labels"), arcs.label)
    counts = np.diff(first)
    ends = arcs.label == _END
    final: Dict[int, float] = {}
    silent = ends & (counts == 0)
    for state, score in zip(arcs.source[silent].tolist(), arcs.score[silent].tolist()):
        final[state] = max(final.get(state, -np.inf), score)
    plain = ~ends & (counts <= 1)
    kept = arcs.at(plain)
    one = counts[plain] == 1
    kept.output[one] = words[first[:-1][plain][one]]
    kept = kept._replace(label=kept.label + shift)
    states = int(max(arcs.source.max(initial=0), arcs.dest.max(initial=0))) + 1
    rows: List[Tuple[int, int, int, int, float]] = []
    for a in np.flatnonzero(~plain & ~silent).tolist():
        source, score = int(arcs.source[a]), float(arcs.score[a])
        label = 0 if ends[a] else int(arcs.label[a]) + shift
        for word in words[first[a] : first[a + 1]].tolist():
            rows.append((source, states, label, word, score))
            source, label, score, states = states, 0, 0.0, states + 1
        if ends[a]:
            final[source] = 0.0
        else:
            rows[-1] = (rows[-1][0], int(arcs.dest[a]), *rows[-1][2:])
            states -= 1
    if not final:
        raise UserError("the graph has no final state, so it accepts nothing")
    columns = list(zip(*rows)) if rows else [()] * 5
    more = [np.array(column, np.float32 if i == 4 else np.int64) for i, column in enumerate(columns)]
    return Fsa.from_arcs(kept.joined(FsaArcs(*more)), final)


def read_k2_grammar(path: PathLike, symbols: Mapping[str, int]) -> NgramLm:
    """Read an n-gram grammar, e.g. ``G_4_gram.pt``; its back-off arcs read ``#0`` or nothing.

    Args:
      path: the file.
      symbols: ``words.txt`` as a mapping.

    Raises:
      UserError: the file is missing, damaged, or no n-gram with one back-off arc per history.
    """
    graph = read_k2_graph(path)
    arcs = graph.arcs()
    backs_off = np.isin(arcs.label, [0, symbols.get(DISAMBIG, 0)])
    back = arcs.at(backs_off & (arcs.source != arcs.dest))  # icefall may have added loops without label
    words = arcs.at(~backs_off)
    (finals,) = np.nonzero(graph.final > -np.inf)
    try:
        automaton = assemble(
            graph.start,
            arcs=np.stack([words.source, words.dest, words.label], axis=1).astype(np.int64),
            weight=words.score,
            back=np.stack([back.source, back.dest], axis=1).astype(np.int64),
            back_weight=back.score,
            finals=finals[:, None],
            final=graph.final[finals],
        )
    except UserError as e:
        raise UserError(f"{path}: {e}") from e
    return NgramLm(automaton, symbols)


def k2_arcs(content: Mapping[str, object]) -> FsaArcs:
    """Return the arcs of a graph, those with label -1 to its final state included.

    Args:
      content: what ``as_dict()`` of a ``k2.Fsa`` returns, or of a vector of one graph.

    Raises:
      UserError: it is something else.
    """
    arcs = content.get("arcs")
    if not isinstance(arcs, Tensor) or arcs.is_floating_point():
        raise UserError("no graph of k2: it has no arcs")
    rows = arcs.int().numpy()
    if rows.ndim == 1:  # number of graphs, 0, two arrays of offsets, arcs
        if len(rows) < 6 or rows[0] != 1 or rows[5] * 4 != len(rows) - 6:
            raise UserError("no single graph of k2")
        rows = rows[6:].reshape(-1, 4)
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise UserError("no graph of k2: its arcs do not have four columns")
    source, dest, label = (rows[:, i].astype(np.int64) for i in range(3))
    score = np.ascontiguousarray(rows[:, 3]).view(np.float32)
    if len(rows) and (min(source.min(), dest.min()) < 0 or label.min() < _END or np.isnan(score).any()):
        raise UserError("the graph is damaged: a state or label is negative, or a score is no number")
    return FsaArcs(source, dest, label, np.zeros(len(rows), np.int64), score)


def _words(aux_labels: object, label: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return the words (W,) of A arcs one after the other, and where each arc's begin (A + 1,)."""
    if aux_labels is None:  # an acceptor writes what it reads
        values, first = label, np.arange(len(label) + 1)
    elif isinstance(aux_labels, Ragged) and len(aux_labels.splits) == 1:
        values, first = aux_labels.values.numpy(), aux_labels.splits[0].numpy()
    elif isinstance(aux_labels, Tensor) and aux_labels.dim() == 1:
        values, first = aux_labels.numpy(), np.arange(len(aux_labels) + 1)
    else:
        raise UserError("the graph has output labels (aux_labels) of an unknown form")
    if len(first) != len(label) + 1:
        raise UserError("the graph is damaged: it has not as many output labels as arcs")
    spoken = values > 0  # -1 is at the end, 0 stands for no word
    before = np.concatenate([[0], np.cumsum(spoken)])
    return values[spoken].astype(np.int64), before[first]
