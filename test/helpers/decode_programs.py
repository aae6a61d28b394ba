"""The programs that decode, run on made-up recordings with tiny models."""

import ast
import json

from tiny import PIECES

from asr_core.data.corpus import Corpus

MAIN = "epoch-1_avg-1"  # how the end of result files' names begins
SELECT = [
    "--epoch",
    "1",
    "--avg",
    "1",
    "--use-averaged-model",
    "0",
    "--on-the-fly-feats",
    "1",
    "--num-workers",
    "0",
    "--num-threads",
    "1",
]
CHUNKS = ["--chunk-size", "16", "--left-context-frames", "32"]
BEAM = ["--decoding-method", "modified_beam_search"]
SCALES = {
    "LM_SCALES": (0.1, 1.0, 2.0),
    "ATTENTION_SCALES": (0.01, 1.0, 5.0),
    "MORE_ATTENTION_SCALES": (0.01, 1.0, 5.0, 9.0),
}
DRAWN = "_nbest-scale-1.0_num-paths-100"
# What file names have behind MAIN, and the names of the results.
GRAPH_METHODS = {
    "ctc-decoding": ("", [""]),
    "1best": ("", [""]),
    "nbest": (DRAWN, [""]),
    "nbest-oracle": (DRAWN, [""]),
    "nbest-rescoring": (DRAWN, [f"_lm_scale_{s}" for s in SCALES["LM_SCALES"]]),
    "whole-lattice-rescoring": ("", [f"_lm_scale_{s}" for s in SCALES["LM_SCALES"]]),
    "attention-decoder-rescoring-no-ngram": (
        DRAWN,
        [f"_attention_scale_{s}" for s in SCALES["MORE_ATTENTION_SCALES"]],
    ),
    "attention-decoder-rescoring-with-ngram": (
        DRAWN,
        [
            f"_ngram_lm_scale_{n}_attention_scale_{a}"
            for n in SCALES["ATTENTION_SCALES"]
            for a in SCALES["ATTENTION_SCALES"]
        ],
    ),
    "ctc-prefix-beam-search-attention-decoder-rescoring": (
        "__ctc-prefix-beam-search-attention-decoder-rescoring__beam-size-8",
        [f"_beam-size-8_attention_scale_{s}" for s in SCALES["MORE_ATTENTION_SCALES"]],
    ),
}


class Noise(Corpus):
    name = "noise"
    test_parts = {"test-a": "a", "test-b": "b"}


def run(program, world, causal, *options):
    where = ["--exp-dir", str(world / f"exp-{causal}"), "--manifest-dir", str(world / "fbank")]
    program.main(Noise, argv=[*SELECT, *where, *options])


def hypotheses(path):
    return {
        line.split(":\t")[0]: ast.literal_eval(line.split("hyp=")[1])
        for line in path.read_text().splitlines()
        if "\thyp=" in line
    }


def options(extras):
    return [
        "--lm-exp-dir",
        str(extras / "lm"),
        "--lm-vocab-size",
        str(len(PIECES)),
        "--lang-dir",
        str(extras),
        "--test-sets",
        "test-b",
    ]


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def check_times(found):
    for record in found:
        times = [t for w in record["words"] for t in (w["start"], w["end"])]
        assert times == sorted(times) and record["timestamps"] == sorted(record["timestamps"])
        assert all(0 <= t <= record["duration"] + 1e-3 for t in (*times, *record["timestamps"]))
        assert len(record["tokens"]) == len(record["timestamps"])
        assert [w["w"] for w in record["words"]] == record["text"].split()
