"""Average checkpoints into one file that any of the other programs can read."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from asr_core.bin import decoding as shared
from asr_core.bin.common import run_program
from asr_core.utils.options import AttributeDict, Parser, add_options, option, params_of


@dataclass
class TokensOptions:
    """Tokens."""

    tokens: str = option("", "tokens.txt or bpe.model; if given, the model must have as many tokens")


def generate(params: AttributeDict) -> None:
    """Write ``epoch-E-avg-A.pt`` or ``iter-I-avg-A.pt`` into the experiment's folder, in the form of a pretrained.pt."""
    from asr_core.decoding.naming import checkpoint_part
    from asr_core.export.pretrained import save_pretrained
    from asr_core.utils.log import setup_logger

    setup_logger()
    model, trained = shared.load_checkpoint_model(params)
    if params.tokens:
        shared.check_vocabulary(shared.find_tokenizer(params.tokens), model.vocab_size)
    path = Path(params.exp_dir) / f"{checkpoint_part(params)}-avg-{params.avg}.pt"
    save_pretrained(model, trained, path)
    logging.info("wrote %s", path)


def main(defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; arguments as of :func:`asr_core.bin.export.main`."""
    from asr_core.decoding.options import CheckpointOptions

    all_defaults = {"avg": 9, **(defaults or {})}
    parser = Parser(__doc__)
    for cls in (CheckpointOptions, TokensOptions):
        add_options(parser, cls, all_defaults)
    shared.add_model_options(parser, all_defaults, argv)
    params = params_of(parser.parse_args(argv))
    run_program(lambda: generate(params))


if __name__ == "__main__":
    main()
