"""Train a SentencePiece tokenizer on transcripts; write bpe.model and tokens.txt."""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.lock import hold_folder
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class TokenizerOptions:
    """Tokenizer: text, kind and size."""

    lang_dir: str = option(
        "", "folder for bpe.model and tokens.txt, e.g. data/lang_bpe_500", needed=True, path=PathKind.PLACE
    )
    transcript: str = option("", "text, one utterance a line", needed=True, path=PathKind.FILE)
    vocab_size: int = option(
        500, "number of tokens, <blk>, <sos/eos> and <unk> among them", at_least=4, at_most=1_000_000
    )
    model_type: str = option("unigram", "how tokens are found", choices=("unigram", "bpe", "char"))
    fit_vocab: bool = option(
        False, "take the nearest size possible where the text does not allow --vocab-size"
    )
    keep_text: bool = option(False, "leave characters as they are, instead of Unicode normalization NFKC")


def _run(opts: TokenizerOptions) -> None:
    from asr_core.text.train_tokenizer import train_tokenizer

    with hold_folder(opts.lang_dir, "training of a tokenizer", "choose another --lang-dir"):
        train_tokenizer(
            opts.transcript, opts.lang_dir, opts.vocab_size, opts.model_type, opts.fit_vocab, opts.keep_text
        )


main = program(TokenizerOptions, __doc__, _run)


if __name__ == "__main__":
    main()
