"""Recognition of a batch in one call, for tests."""

from asr_core.decoding.method import BEST
from asr_core.decoding.offline import encode, search
from asr_core.encoders.chunk_options import Chunk


def recognize(model, x, x_lens, opts, causal, chunk_size=-1):
    """The answers of a method that needs nothing but the model, on features (N, T, F) and lengths
    (N,).
    """
    chunk = Chunk(chunk_size, -1) if causal else None
    return answers(search(encode(model, x, x_lens, opts, chunk=chunk)))


def answers(results):
    """The answer for each utterance of a method that has one result."""
    return [hypotheses[0] for hypotheses in results[BEST]]
