#!/usr/bin/env python3
"""Write training texts for language models: strings of digits in words, one per line."""

import logging
from dataclasses import dataclass

import numpy as np
from strings import STRINGS, WORDS, draw_length

from asr_core.cli.program import run_program
from asr_core.utils.files import write_text_atomic
from asr_core.utils.log import setup_logger
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class StringOptions:
    """Text: number and kind of lines, output."""

    output: str = option("data/lm_chain/train.txt", "output file")
    num: int = option(20000, "number of lines")
    strings: str = option(
        "chain",
        "random: independent digits; chain: a digit partly predicts the next one",
        choices=tuple(STRINGS),
    )
    seed: int = option(20240201, "random seed")


def run(opts: StringOptions) -> None:
    """Write the text."""
    rng = np.random.default_rng(opts.seed)
    lines = [
        " ".join(WORDS[d] for d in STRINGS[opts.strings](rng, draw_length(rng))) for _ in range(opts.num)
    ]
    write_text_atomic(opts.output, "".join(line + "\n" for line in lines))
    logging.info("%s: %d lines", opts.output, len(lines))


if __name__ == "__main__":
    parser = Parser(__doc__)
    add_options(parser, StringOptions)
    options = from_params(StringOptions, parser.parse_args())
    setup_logger()
    run_program(lambda: run(options))
