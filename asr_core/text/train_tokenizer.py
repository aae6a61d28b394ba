"""Training of SentencePiece tokenizers with the special tokens and files of the recipes."""

import io
import logging
import re
import shutil
from pathlib import Path
from typing import List, Optional

import sentencepiece

from asr_core.text.tokenizer import BLANK, SOS_EOS, UNK, Tokenizer, format_tokens, single_spaced
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, write_text_atomic
from asr_core.utils.paths import PathLike

_NUM_SPECIAL = 3  # <blk>, <sos/eos>, <unk>


def train_tokenizer(
    transcript: PathLike,
    lang_dir: PathLike,
    vocab_size: int,
    model_type: str = "unigram",
    fit: bool = False,
    keep_text: bool = False,
) -> int:
    """Train a tokenizer and write it to a folder.

    The files are ``<type>_<size>.model``, ``<type>_<size>.vocab``, ``bpe.model`` and
    ``tokens.txt``. Ids 0, 1, 2 are ``<blk>``, ``<sos/eos>``, ``<unk>``; all characters of the text
    are covered.

    Args:
      transcript: text file, one utterance a line.
      lang_dir: output folder, created if necessary.
      vocab_size: number of tokens.
      model_type: ``unigram``, ``bpe`` or ``char``.
      fit: if the text does not allow ``vocab_size``, take the nearest size that it does, and log
        it.
      keep_text: no Unicode normalization inside the tokenizer.

    Returns:
      The number of tokens.

    Raises:
      UserError: no text, or a size that the text does not allow.
    """
    lines = _read_lines(Path(transcript))
    lang_dir = Path(lang_dir)
    try:
        model = _train(lines, vocab_size, model_type, keep_text)
    except RuntimeError as e:
        nearest = _nearest_size(lines, vocab_size, model_type, keep_text, str(e))
        if nearest is None:
            raise UserError(f"cannot train a tokenizer on {transcript}: {_reason(e)}") from e
        if not fit:
            raise UserError(
                f"the text of {transcript} does not allow {vocab_size} {model_type} tokens; "
                f"the nearest size is --vocab-size {nearest}"
            ) from e
        logging.warning("the text does not allow %d %s tokens: using %d", vocab_size, model_type, nearest)
        vocab_size = nearest
        model = _train(lines, vocab_size, model_type, keep_text)
    named = lang_dir / f"{model_type}_{vocab_size}.model"
    with atomic_path(named) as tmp:
        tmp.write_bytes(model)
    pieces = Tokenizer.load(named).pieces
    write_text_atomic(named.with_suffix(".vocab"), _vocab(model))
    with atomic_path(lang_dir / "bpe.model") as tmp:  # it appears last: it marks the folder as complete
        shutil.copyfile(named, tmp)
        write_text_atomic(lang_dir / "tokens.txt", format_tokens(pieces))
    logging.info("%s: %d %s tokens", lang_dir, len(pieces), model_type)
    return len(pieces)


def _vocab(model: bytes) -> str:
    """Return lines of piece and log-probability, the ``.vocab`` file of SentencePiece."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(processor.get_piece_size())
    return "".join(f"{processor.id_to_piece(i)}\t{processor.get_score(i):g}\n" for i in ids)


def _read_lines(path: Path) -> List[str]:
    """Return the lines with single spaces, as a tokenizer encodes them, without words ``<unk>``."""
    try:
        raw = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read transcripts {path}: {e}") from e
    lines = [" ".join(word for word in single_spaced(line).split(" ") if word != UNK) for line in raw]
    # SentencePiece leaves out any <unk>, but inside a word its characters are to be spelled
    lines = [line.replace(UNK, f"{UNK[:1]} {UNK[1:]}") for line in lines if line]
    if not lines:
        raise UserError(f"{path} has no text to train a tokenizer on")
    return lines


def _train(lines: List[str], vocab_size: int, model_type: str, keep_text: bool) -> bytes:
    """Train a model; return its file's content."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        vocab_size=vocab_size,
        model_type=model_type,
        character_coverage=1.0,
        input_sentence_size=100_000_000,  # as icefall: in practice, the whole text
        user_defined_symbols=[BLANK, SOS_EOS],
        unk_id=_NUM_SPECIAL - 1,
        bos_id=-1,
        eos_id=-1,
        normalization_rule_name="identity" if keep_text else "nmt_nfkc",
        max_sentence_length=1 << 20,
        num_threads=1,  # so that a text always gives the same tokens
        minloglevel=2,
    )
    return out.getvalue()


def _nearest_size(
    lines: List[str], wanted: int, model_type: str, keep_text: bool, message: str
) -> Optional[int]:
    """Return the possible size nearest to the impossible ``wanted``; None if no size works.

    SentencePiece's error message hints at possible sizes; all characters and the special tokens are
    one, too.
    """
    characters = len({ch for line in lines for ch in line if not ch.isspace()}) + 1 + _NUM_SPECIAL
    hints = [int(n) for n in re.findall(r"\d+", message) if _NUM_SPECIAL < int(n) < 1_000_000]
    for size in sorted({*hints, characters} - {wanted}, key=lambda n: abs(n - wanted)):
        if _possible(lines, size, model_type, keep_text):
            return _grow(lines, size, wanted, model_type, keep_text)
    return None


def _grow(lines: List[str], possible: int, wanted: int, model_type: str, keep_text: bool) -> int:
    """Bisect between a possible and an impossible size; return the possible one nearest to it."""
    while abs(wanted - possible) > 1:
        middle = (possible + wanted) // 2
        if _possible(lines, middle, model_type, keep_text):
            possible = middle
        else:
            wanted = middle
    return possible


def _possible(lines: List[str], size: int, model_type: str, keep_text: bool) -> bool:
    try:
        _train(lines, size, model_type, keep_text)
    except RuntimeError:
        return False
    return True


def _reason(e: RuntimeError) -> str:
    return str(e).strip().splitlines()[-1]
