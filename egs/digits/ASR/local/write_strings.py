#!/usr/bin/env python3
"""Write texts for language models: strings of digits in words, one a line."""

import logging
from dataclasses import dataclass

import numpy as np
from strings import STRINGS, WORDS, draw_length

from asr_core.cli.program import run_program
from asr_core.utils.log import setup_logger
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class StringOptions:
    """Texts: how many lines, of what, and where to."""

    output: str = option("data/lm_chain/train.txt", "the text")
    num: int = option(20000, "lines")
    strings: str = option(
        "chain", "random: any digits; chain: a digit tells much of the next one", choices=tuple(STRINGS)
    )
    seed: int = option(20240201, "seed; another one gives other lines")


def run(opts: StringOptions) -> None:
    """Write the text."""
    from asr_core.utils.files import write_text_atomic

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
