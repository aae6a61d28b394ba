"""Decode test sets with a trained model's CTC head and score the transcripts.

A recipe's ctc_decode.py calls :func:`main`.
"""

from typing import Dict, Mapping, Optional, Sequence, Type

from asr_core.bin import decode
from asr_core.cli.decoding_arguments import hide_unused
from asr_core.data.corpus import Corpus
from asr_core.utils.options import Parser, peek

DEFAULTS = {
    "decoding_method": "ctc-decoding",
    "num_paths": 100,
    "nbest_scale": 1.0,
    "context_score": 0.0,
    "lm_scale": 0.0,
}
_WIDER = "ctc-prefix-beam-search-attention-decoder-rescoring"


def main(
    corpus: Type[Corpus],
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[Sequence[str]] = None,
) -> None:
    """Parse the command line and run: :func:`asr_core.bin.decode.main` with defaults for CTC.

    Args:
      corpus: the recipe's corpus class.
      defaults: defaults of the recipe's options, by name; they go before all others.
      argv: the command line, by default this process'.
    """
    mine: Dict[str, object] = {**DEFAULTS, **(defaults or {})}
    if peek(argv, "decoding-method", str(mine["decoding_method"])) == _WIDER:
        mine.setdefault("beam_size", 8)
    decode.main(corpus, mine, argv, _ignored)


def _ignored(parser: Parser) -> None:
    """Add an option of training that published commands have."""
    parser.add_argument("--attention-decoder-loss-scale", type=float)
    hide_unused(parser, ["attention_decoder_loss_scale"])
