"""Tokenizers of a few tokens, trained on a few lines."""


def train_bpe(folder, lines, vocab_size):
    """Write ``bpe.model`` and ``bpe.vocab`` to ``folder``."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "bpe"),
        vocab_size=vocab_size,
        model_type="bpe",
        unk_id=2,
        bos_id=-1,
        eos_id=-1,
        user_defined_symbols=["<blk>", "<sos/eos>"],
        minloglevel=2,
        hard_vocab_limit=False,
    )
