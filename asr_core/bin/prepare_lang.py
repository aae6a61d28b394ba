"""Make a phone lang folder from its lexicon.txt.

Writes lexicon_disambig.txt, tokens.txt, words.txt, and L.fst.txt and L_disambig.fst.txt in OpenFst
text, with optional silence of probability 0.5 at the start and after each word. The graph objects
L.pt and L_disambig.pt are written only where k2 is installed.
"""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.lock import hold_folder
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class LangOptions:
    """Lang folder with a phone lexicon."""

    lang_dir: str = option(
        "",
        "folder with lexicon.txt (lines of a word and its phones); the output goes there, "
        "e.g. data/lang_phone",
        needed=True,
        path=PathKind.FOLDER,
    )
    silence: str = option("SIL", "the phone of optional silence; '' for no silence between words")


def _run(opts: LangOptions) -> None:
    from asr_core.lm.lang_folder import make_phone_lang

    with hold_folder(opts.lang_dir, "preparation of a lang folder", "choose another --lang-dir"):
        make_phone_lang(opts.lang_dir, opts.silence)


main = program(LangOptions, __doc__, _run)


if __name__ == "__main__":
    main()
