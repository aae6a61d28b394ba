"""CTC prefix beam search on made-up log-probabilities, each beam also with a word n-gram; results
are checked before anything is timed.

python test/bench/bench_ctc_prefix.py [--batch 8] [--frames 200] [--repeats 5]
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from toy_ctc import dictionary_search  # noqa: E402

from asr_core.decoding.beam_options import BeamOptions  # noqa: E402
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search  # noqa: E402
from asr_core.decoding.scorers.word_ngram import WordNgramScorer, WordWeights  # noqa: E402
from asr_core.lm.arpa import write_arpa  # noqa: E402
from asr_core.lm.kneser_ney import estimate  # noqa: E402
from asr_core.lm.ngram import NgramLm  # noqa: E402

VOCAB_SIZE = 500
MODEL = SimpleNamespace(ctc_output=lambda x: x)
PIECES = ["<blk>", *(("\u2581" if i % 3 else "") + chr(0x4E00 + i) for i in range(1, VOCAB_SIZE))]


def made_up(batch, frames):
    """Log-probabilities with blank ahead at four frames of five, and two tokens that compete at the
    others.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, frames, VOCAB_SIZE, generator=generator) * 1.5
    x[:, :, 0] += 9
    emits = torch.rand(batch, frames, generator=generator) < 0.2
    for height in (14.0, 12.5):
        token = torch.randint(1, VOCAB_SIZE, (batch, frames, 1), generator=generator)
        x.scatter_add_(2, token, (emits * height).unsqueeze(2))
    return x.log_softmax(-1), torch.full((batch,), frames)


def word_scorer(x, lens):
    """A trigram of the words that the search finds by itself."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            "".join(PIECES[t] for t in best[0].tokens).replace("\u2581", " ")
            for best in ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=1))
        ]
        (Path(folder) / "text").write_text("\n".join(lines))
        write_arpa(Path(folder) / "3.arpa", estimate(Path(folder) / "text", 3))
        return WordNgramScorer(
            NgramLm.from_arpa(Path(folder) / "3.arpa"), PIECES, WordWeights(), torch.device("cpu")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, lens = made_up(args.batch, args.frames)
    (found,) = ctc_prefix_beam_search(MODEL, x[:1, :40], torch.tensor([40]), BeamOptions(beam_size=4))
    if [tuple(h.tokens) for h in found] != [tokens for tokens, _ in dictionary_search(x[0, :40], 4)]:
        sys.exit("prefixes differ from those of a plain search")
    scorer = word_scorer(x, lens)
    print(f"{'beam':>6}{'word n-gram':>14}{'frames/s':>12}{'utt/s':>10}   (processor time, one thread)")
    for beam in (4, 20, 100):
        for scorers in ([], [scorer]):
            seconds = []
            for _ in range(args.repeats):
                begin = time.process_time()
                ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=beam, num_best=1), scorers)
                seconds.append(time.process_time() - begin)
            rate = args.batch / statistics.median(seconds)
            print(f"{beam:>6}{'yes' if scorers else 'no':>14}{rate * args.frames:>12.0f}{rate:>10.1f}")


if __name__ == "__main__":
    main()
