"""Files of phrases for contextual biasing."""

import logging
from pathlib import Path
from typing import List

from asr_core.text.tokenizer import UNK, Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

_SHOWN = 5


def read_phrases(path: PathLike, tokenizer: Tokenizer) -> List[List[int]]:
    """Return the token ids of the phrases in a file, one a line; empty lines are ignored.

    Phrases that the tokens cannot spell are left out; the log names them.

    Raises:
      UserError: the file cannot be read, or no phrase is left.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read --context-file {path}: {e}") from e
    phrases = [(number, " ".join(line.split())) for number, line in enumerate(lines, 1) if line.strip()]
    if not phrases:
        raise UserError(f"--context-file {path} has no phrases")
    found: List[List[int]] = []
    bad: List[str] = []
    for (number, phrase), ids in zip(phrases, tokenizer.encode([phrase for _, phrase in phrases])):
        if tokenizer.unk_id in ids:
            reserved = "".join(tokenizer.reserved_symbols(phrase))
            unknown = reserved or tokenizer.unknown_characters(phrase) or UNK
            bad.append(f"{path}:{number}: the tokens cannot spell {unknown!r} of {phrase!r}")
        elif ids:
            found.append(ids)
    if not found:
        raise UserError(f"{(bad or [f'--context-file {path} has no phrases'])[0]}; is its case right?")
    if bad:
        logging.warning("%d of %d phrases are left out:", len(bad), len(phrases))
        for line in bad[:_SHOWN] + ([f"... and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []):
            logging.warning("  %s", line)
    return found
