"""Average checkpoints into one file that any of the other programs can read."""

import logging
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from asr_core.bin import export
from asr_core.cli.program import run_program
from asr_core.utils.options import AttributeDict, from_params


def generate(params: AttributeDict) -> None:
    """Write ``epoch-E-avg-A.pt`` or ``iter-I-avg-A.pt`` into the experiment's folder, in the form of a pretrained.pt."""
    from asr_core.decoding.model_loading import (
        check_vocabulary,
        find_tokenizer,
        load_checkpoint_model,
        model_overrides,
    )
    from asr_core.export.pretrained import save_pretrained
    from asr_core.models.checkpoint_options import CheckpointOptions
    from asr_core.utils.log import setup_logger

    setup_logger()
    checkpoint = from_params(CheckpointOptions, params)
    model, trained = load_checkpoint_model(checkpoint, model_overrides(params))
    if params.tokens:
        check_vocabulary(find_tokenizer(params.tokens), model.vocab_size)
    path = (
        Path(params.exp_dir) / f"{checkpoint.stem}-avg-{params.avg}{'-use-ema' if params.use_ema else ''}.pt"
    )
    save_pretrained(model, trained, path)
    logging.info("wrote %s", path)


def main(defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; arguments as of :func:`asr_core.bin.export.parsed`. The default of ``tokens`` has no meaning."""
    params, _ = export.parsed(__doc__, export.TokensOptions, defaults, argv)
    run_program(lambda: generate(params))


if __name__ == "__main__":
    main()
