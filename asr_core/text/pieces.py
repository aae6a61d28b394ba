"""The tokens that a model was trained with, as its files record them, against a tokenizer's."""

from pathlib import Path
from typing import List, Mapping, Optional, Sequence

from asr_core.text.tokenizer import Tokenizer, read_pieces
from asr_core.utils.errors import UserError

KEY = "pieces"  # entry of checkpoints and other files: the tokens by id
_ADVICE = "give the tokenizer that the model was trained with (training copied it to --exp-dir)"


def recorded_pieces(
    content: Mapping[str, object], folder: Optional[Path] = None, size: int = 0
) -> Optional[List[str]]:
    """Return the tokens of a model by id, as its file records them; None if nothing does.

    Files of icefall and of versions before 0.2 do not. For these, the tokens.txt counts that
    training wrote into the folder of a run.

    Args:
      content: content of the file.
      folder: the file's folder.
      size: number of tokens, if it is known; a tokens.txt of another number is passed over.

    Raises:
      UserError: the record is damaged.
    """
    pieces = content.get(KEY)
    if pieces is not None:
        if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
            raise UserError(f"its record of tokens ({KEY}) is no list of texts: the file is damaged")
        return pieces
    if folder is None or not (folder / "params.json").is_file():
        return None
    try:
        found = read_pieces(folder / "tokens.txt", size)
    except UserError:
        return None
    return None if size and len(found) != size else found


def difference(own: Sequence[str], other: Sequence[str], owner: str = "the model's") -> str:
    """Return where tokens first differ, in words for a message; "" where they are the same.

    Args:
      own: tokens of a tokenizer by id.
      other: those to compare it with.
      owner: whose they are.
    """
    for i, (one, two) in enumerate(zip(own, other)):
        if one != two:
            return f"its token {i} is {one!r}, {owner} {two!r}"
    if len(own) == len(other):
        return ""
    return f"it has {len(own)} tokens, {owner} are {len(other)}"


def check_tokenizer(
    tokenizer: Tokenizer,
    vocab_size: int,
    recorded: Optional[Sequence[str]] = None,
    model: str = "the model",
    advice: str = _ADVICE,
) -> None:
    """Refuse a tokenizer that is not a model's.

    Args:
      tokenizer: the tokenizer.
      vocab_size: number of tokens of the model.
      recorded: the model's tokens, see :func:`recorded_pieces`; None if they are not known.
      model: the model, for messages.
      advice: what to do about it.

    Raises:
      UserError: the numbers of tokens or the tokens differ; the first is named.
    """
    pieces = tokenizer.pieces
    found = difference(pieces, recorded) if recorded is not None else ""
    if len(pieces) != vocab_size:
        which = f" ({found})" if found.startswith("its") else ""
        raise UserError(
            f"{tokenizer.path} has {len(pieces)} tokens, but {model} {vocab_size}{which}: "
            f"it is another model's tokenizer; {advice}"
        )
    if found:
        raise UserError(f"{tokenizer.path} is not the tokenizer of {model}: {found}; {advice}")
