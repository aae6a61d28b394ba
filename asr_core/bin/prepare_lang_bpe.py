"""Make the lexicon and graphs of a lang folder with bpe.model and words.txt.

Writes lexicon.txt, lexicon_disambig.txt, tokens.txt with the disambiguation symbols #0, #1, ...
after the last piece, and L.fst.txt and L_disambig.fst.txt in OpenFst text, without silence. The
graph objects L.pt and L_disambig.pt are written only where k2 is installed.
"""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.lock import hold_folder
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class LangBpeOptions:
    """Lang folder with a lexicon of pieces."""

    lang_dir: str = option(
        "",
        "folder with bpe.model and words.txt; the output goes there, e.g. data/lang_bpe_500",
        needed=True,
        path=PathKind.FOLDER,
    )
    oov: str = option("<UNK>", "the word that stands for unknown ones; its pieces are \u2581 <unk>")


def _run(opts: LangBpeOptions) -> None:
    from asr_core.lm.lang_folder import make_bpe_lang

    with hold_folder(opts.lang_dir, "preparation of a lang folder", "choose another --lang-dir"):
        make_bpe_lang(opts.lang_dir, opts.oov)


main = program(LangBpeOptions, __doc__, _run)


if __name__ == "__main__":
    main()
