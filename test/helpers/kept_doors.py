"""The doors of the library through which the tests of kept files go.

Its names are imported here and nowhere else in this folder.
"""

import contextlib
import io

from asr_core.bin import (
    calibrate_confidence,
    compute_fbank,
    decode,
    export,
    export_lm,
    jit_trace_export,
    jit_trace_pretrained,
    lm_perplexity,
    prepare_lm_data,
    score,
    train,
    train_lm,
    transcribe,
)
from asr_core.data.corpus import Corpus
from asr_core.decoding.encoding import collate
from asr_core.decoding.method import BEST
from asr_core.decoding.offline import encode, search
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.encoders.chunk_options import Chunk
from asr_core.export.loading import load_for_inference
from asr_core.export.traced import load_traced
from asr_core.lm.options import LmOptions
from asr_core.models.checkpoint import load_averaged_model

__all__ = [
    "LmOptions",
    "SearchOptions",
    "StreamBatch",
    "collate",
    "decode_streams",
    "load_averaged_model",
    "load_for_inference",
    "load_lm",
    "load_traced",
    "run",
    "searched",
    "streaming_search",
]

ENCODERS = ["zipformer", "conformer", "contextnet", "lstm", "zipformer1"]


class Tones(Corpus):
    """Made-up recordings of tones."""

    name = "tones"
    test_parts = {"valid": "valid"}


PROGRAMS = {
    "calibrate_confidence": calibrate_confidence.main,
    "compute_fbank": compute_fbank.main,
    "export": export.main,
    "export_lm": export_lm.main,
    "jit_trace_export": jit_trace_export.main,
    "jit_trace_pretrained": jit_trace_pretrained.main,
    "lm_perplexity": lm_perplexity.main,
    "prepare_lm_data": prepare_lm_data.main,
    "score": score.main,
    "train_lm": train_lm.main,
    "transcribe": transcribe.main,
    "decode": lambda argv: decode.main(Tones, argv=argv),
    "train": lambda argv: train.main(Tones, argv=argv, encoders=ENCODERS),
}


def searched(model, x, lens, method, causal, chunk_size):
    """Encoder output of a batch, and its hypotheses by name of the result, "" where the method has
    one.
    """
    chunk = Chunk(chunk_size, -1) if causal else None
    job = encode(model, x, lens, SearchOptions(decoding_method=method), chunk=chunk)
    results = {"" if name == BEST else name: lists for name, lists in search(job).items()}
    return job.encoder_out, {name: [found[0] for found in lists] for name, lists in results.items()}


def run(program, *argv, status=None):
    """Run a program in this process; returns what it printed.

    Args:
      program: its name.
      argv: its command line.
      status: the exit status, of programs that end the process.
    """
    out, ended = io.StringIO(), None
    with contextlib.redirect_stdout(out):
        try:
            PROGRAMS[program](argv=[str(word) for word in argv])
        except SystemExit as e:
            ended = e.code
    assert ended == status, f"{program} ended with status {ended}, not {status}"
    return out.getvalue()
