"""Search speed on the reference's encoder outputs; results are checked against the reference's
before anything is timed.

python test/bench/bench_search.py [--batch 30] [--repeats 5] [--threads 2]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from answers import one_best  # noqa: E402
from golden_search import batches, expected, golden_model, load_golden  # noqa: E402

from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions  # noqa: E402
from asr_core.decoding.transducer.fast_beam import fast_beam_search  # noqa: E402
from asr_core.decoding.transducer.greedy import greedy_search  # noqa: E402
from asr_core.decoding.transducer.modified_beam import modified_beam_search  # noqa: E402

# utterances per second of icefall's searches on 2 cores, batches of 30 (torch 1.13, tuned MKL and
# malloc)
REFERENCE = {
    "greedy_search_batch": 1300.0,
    "modified_beam_search_4": 152.0,
    "fast_beam_search_b20_c8_s64": 221.0,
    "fast_beam_search_b4_c4_s8": 571.0,
}
SEARCHES = {
    "greedy_search_batch": greedy_search,
    "modified_beam_search_4": lambda model, x, lens: one_best(
        modified_beam_search(model, x, lens, BeamOptions(num_best=1))
    ),
    "fast_beam_search_b20_c8_s64": lambda model, x, lens: fast_beam_search(
        model, x, lens, FastBeamOptions(beam=20.0, max_contexts=8, max_states=64)
    ),
    "fast_beam_search_b4_c4_s8": lambda model, x, lens: fast_beam_search(
        model, x, lens, FastBeamOptions(beam=4.0, max_contexts=4, max_states=8)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = load_golden()
    model = golden_model(data)
    print(f"{'search':<28}{'utt/s':>10}{'reference':>12}{'ratio':>8}")
    for name, search in SEARCHES.items():
        found = [h.tokens for x, lens in batches(data, args.batch) for h in search(model, x, lens)]
        if found != expected(data, name):
            sys.exit(f"{name}: tokens differ from the reference's")
        rates = []
        for _ in range(args.repeats):
            begin = time.perf_counter()
            for x, lens in batches(data, args.batch):
                search(model, x, lens)
            rates.append(len(found) / (time.perf_counter() - begin))
        rate = statistics.median(rates)
        print(f"{name:<28}{rate:>10.0f}{REFERENCE[name]:>12.0f}{rate / REFERENCE[name]:>8.2f}")


if __name__ == "__main__":
    main()
