"""Train a SentencePiece tokenizer on transcripts; write bpe.model and tokens.txt."""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class TokenizerOptions:
    """Tokenizer: its text, kind and size."""

    lang_dir: str = option("", "folder for bpe.model and tokens.txt, e.g. data/lang_bpe_500")
    transcript: str = option("", "text, one utterance a line")
    vocab_size: int = option(500, "number of tokens, <blk>, <sos/eos> and <unk> among them")
    model_type: str = option("unigram", "how tokens are found", choices=("unigram", "bpe", "char"))
    fit_vocab: bool = option(
        False, "take the nearest size possible where the text does not allow --vocab-size"
    )
    keep_text: bool = option(False, "leave characters as they are, instead of Unicode normalization NFKC")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.text.train_tokenizer import train_tokenizer
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, TokenizerOptions)
    opts = from_params(TokenizerOptions, parser.parse_args(argv))
    if not opts.lang_dir or not opts.transcript:
        parser.error("--lang-dir and --transcript are needed")
    setup_logger()

    def body() -> None:
        size = train_tokenizer(
            opts.transcript, opts.lang_dir, opts.vocab_size, opts.model_type, opts.fit_vocab, opts.keep_text
        )
        logging.info("%s: %d %s tokens", opts.lang_dir, size, opts.model_type)

    run_program(body)


if __name__ == "__main__":
    main()
