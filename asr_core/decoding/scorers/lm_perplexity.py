"""Perplexity of a neural language model from its checkpoints, on a prepared text."""

from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.lm.archive import LmArchive
from asr_core.lm.options import LmOptions
from asr_core.lm.perplexity import neural_perplexity, perplexity_of
from asr_core.utils.device import pick_device
from asr_core.utils.paths import PathLike


def describe_perplexity(
    opts: LmOptions, lm_type: str, data: PathLike, *, batch_size: int, device: str
) -> str:
    """Return the perplexity of a model on a text, per token and per word, in one line.

    Args:
      opts: the model.
      lm_type: ``"rnn"`` or ``"transformer"``.
      data: the text in tokens, an archive of :class:`~asr_core.lm.archive.LmArchive`.
      batch_size: sentences at once.
      device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
      UserError: the checkpoints or the text are missing, or do not fit each other.
    """
    archive = LmArchive.load(data)
    lm = load_lm(opts, None, pick_device(device), lm_type, archive.pieces)
    out = neural_perplexity(lm, archive, batch_size)
    tokens = int(archive.sentence_lengths.sum()) + archive.num_sentences
    return (
        f"{out.sentences} sentences, {out.words} words, {tokens} tokens and ends; "
        f"natural log probability {out.log_prob:.4f}; "
        f"perplexity {perplexity_of(out.log_prob, tokens):.4f} per token, {out.with_oovs:.4f} per word"
    )
