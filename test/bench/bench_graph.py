"""Speed of searching HLG (spelled digits, a bigram) with CTC posteriors; beside k2's where it is
installed, and checked against it first.

python test/bench/bench_graph.py [--utterances 60] [--frames 400] [--batch 30] [--repeats 5] [--threads 2] [--hlg FILE]

Without kaldifst, which composes HLG, give the file that another run has left with --hlg
(HLG.fst.txt, words.txt beside it).
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_core.decoding.beam_options import GraphSearchOptions
from asr_core.decoding.ctc.graph_search import intersect, path_hypothesis
from asr_core.decoding.graph.ctc_topology import search_graph
from asr_core.decoding.graph.fsa import Fsa
from asr_core.lm.symbols import format_symbols, read_symbols, words_table

DIGITS = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()
LETTERS = sorted(set("".join(DIGITS)))


def compose(folder: Path) -> None:
    """HLG.fst.txt and words.txt of digits in random order."""
    from asr_core.decoding.graph.compile import compile_hlg
    from asr_core.lm.grammar_fst import write_openfst_text
    from asr_core.lm.lexicon import add_disambig_symbols, disambig_symbols, write_graphs
    from asr_core.lm.ngram import NgramLm

    rng = np.random.default_rng(0)
    disambiguated, most = add_disambig_symbols([(word, list(word)) for word in DIGITS])
    (folder / "tokens.txt").write_text(format_symbols(["<blk>", *LETTERS, *disambig_symbols(most)]))
    (folder / "words.txt").write_text(format_symbols(words_table(DIGITS)))
    tokens, words = read_symbols(folder / "tokens.txt"), read_symbols(folder / "words.txt")
    write_graphs(folder, [(word, list(word)) for word in DIGITS], disambiguated, tokens, words)
    one = "".join(f"{-rng.uniform(0.9, 1.2):.3f}\t{word}\t-0.2\n" for word in ("<s>", "</s>", *DIGITS))
    two = "".join(
        f"{-rng.uniform(0.5, 1.5):.3f}\t{a} {b}\n" for a in DIGITS for b in DIGITS if rng.random() < 0.5
    )
    count = two.count("\n")
    (folder / "lm.arpa").write_text(
        f"\\data\\\nngram 1=12\nngram 2={count}\n\n\\1-grams:\n{one}\n\\2-grams:\n{two}\n\\end\\\n"
    )
    write_openfst_text(NgramLm.from_arpa(folder / "lm.arpa", words), folder / "G.fst.txt", words)
    compile_hlg(folder, folder / "G.fst.txt").write(folder / "HLG.fst.txt")


def posteriors(num: int, num_frames: int) -> torch.Tensor:
    """Log-probabilities of spelled digits with wrong frames among them, (num, num_frames, V)."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(num, num_frames, len(LETTERS) + 1))
    for row in logits:
        t = 0
        while t < num_frames:
            for letter in DIGITS[rng.integers(10)]:
                wrong = rng.random() < 0.1
                row[t : t + 1, rng.integers(len(LETTERS)) + 1 if wrong else LETTERS.index(letter) + 1] += 6
                row[t + 1 : t + 1 + int(rng.integers(1, 5)), 0] += 7
                t += 1 + int(rng.integers(1, 5))
    return torch.from_numpy(logits).float().log_softmax(-1)


def search(x: torch.Tensor, lens: torch.Tensor, graph: Fsa, backend: str) -> list:
    """Best hypotheses."""
    lattices = intersect(x, lens, graph, GraphSearchOptions(backend=backend))
    return [path_hypothesis(graph, lattice, *lattice.shortest_path()) for lattice in lattices]


def k2_alone(graph: Fsa) -> Any:
    """k2's search and its shortest path, without any conversion: (log-probabilities, lengths) ->
    None.
    """
    import k2

    from asr_core.decoding.ctc.k2_backend import k2_graph

    made = k2_graph(graph, torch.device("cpu"))

    def run(x: torch.Tensor, lens: torch.Tensor) -> None:
        segments = torch.tensor([[i, 0, length] for i, length in enumerate(lens.tolist())], dtype=torch.int32)
        lattice = k2.intersect_dense_pruned(made, k2.DenseFsaVec(x, segments), 20.0, 8.0, 30, 10000)
        k2.shortest_path(lattice, use_double_scores=True)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("utterances", 60), ("frames", 400), ("batch", 30), ("repeats", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--hlg", default="")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = Path(args.hlg).parent if args.hlg else Path(tempfile.mkdtemp())
    if not args.hlg:
        compose(folder)
        print(f"HLG is {folder}/HLG.fst.txt")
    graph = search_graph(Fsa.read(folder / "HLG.fst.txt").with_words(read_symbols(folder / "words.txt")))
    x = posteriors(args.utterances, args.frames)
    batches = [(part, torch.full((len(part),), args.frames)) for part in x.split(args.batch)]
    backends = ["own"]
    try:
        import k2  # noqa: F401

        backends.append("k2")
    except ImportError:
        print("k2 is not installed: no comparison")
    found = {
        name: [h for part, lens in batches for h in search(part, lens, graph, name)] for name in backends
    }
    if "k2" in found and any(a[:2] != b[:2] or a.words != b.words for a, b in zip(found["own"], found["k2"])):
        sys.exit("k2 finds other words")
    print(
        f"{graph.num_states} states, {graph.num_arcs} arcs; {sum(len(h.words) for h in found['own'])} words found"
    )
    for name in backends:
        run = k2_alone(graph) if name == "k2" else lambda part, lens: search(part, lens, graph, "own")
        rates = []
        for _ in range(args.repeats):
            begin = time.perf_counter()
            for part, lens in batches:
                run(part, lens)
            rates.append(args.utterances / (time.perf_counter() - begin))
        print(f"{name:<4}{statistics.median(rates):>10.0f} utterances per second")


if __name__ == "__main__":
    main()
