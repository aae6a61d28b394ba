"""A lexicon with words that sound alike and words within words, and a bigram grammar over it."""

import math

from asr_core.bin import compile_lg
from asr_core.lm.grammar_fst import write_openfst_text
from asr_core.lm.lexicon import add_disambig_symbols, disambig_symbols, write_graphs
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import format_symbols, read_symbols, words_table

LEXICON = {"a": (3,), "ab": (3, 4), "too": (5, 6), "two": (5, 6), "b": (4,)}
ARPA = r"""
\data\
ngram 1=7
ngram 2=6

\1-grams:
-0.9 </s>
-99 <s> -0.2
-0.6 a -0.3
-0.8 ab -0.1
-1.1 too -0.2
-1.0 two -0.4
-0.7 b

\2-grams:
-0.4 <s> two
-0.3 a too
-0.9 too b
-0.2 two </s>
-0.6 ab ab
-0.5 a b

\end\
"""


def write_lang(root):
    """Make the lang folder of the lexicon, with G.fst.txt and LG.fst.txt; needs kaldifst."""
    lexicon = [(word, [f"t{i}" for i in ids]) for word, ids in LEXICON.items()]
    disambiguated, most = add_disambig_symbols(lexicon)
    (root / "tokens.txt").write_text(
        format_symbols(["<blk>", "t1", "t2", "t3", "t4", "t5", "t6", *disambig_symbols(most)])
    )
    (root / "words.txt").write_text(format_symbols(words_table(LEXICON)))
    tokens, words = read_symbols(root / "tokens.txt"), read_symbols(root / "words.txt")
    write_graphs(root, lexicon, disambiguated, tokens, words)
    (root / "lm.arpa").write_text(ARPA)
    write_openfst_text(NgramLm.from_arpa(root / "lm.arpa", words), root / "G.fst.txt", words)
    compile_lg.main(argv=["--lang-dir", str(root), "--lm", "G", "--lm-dir", str(root)])


def grammar_score(words):
    """The best way through the grammar, backing off allowed where a bigram is known, too."""
    lines = [line.split() for line in ARPA.splitlines() if line.startswith("-")]
    one = {
        f[1]: (float(f[0]), float(f[2]) if len(f) > 2 else 0.0)
        for f in lines
        if len(f) < 3 or f[2].lstrip("-")[0].isdigit()
    }
    two = {
        (f[1], f[2]): float(f[0])
        for f in lines
        if len(f) == 3 and f[2].lstrip("-")[0].isalpha() or len(f) == 3 and f[2] == "</s>"
    }
    pairs = zip(("<s>", *words), (*words, "</s>"))
    return math.log(10) * sum(
        max(two.get(pair, -math.inf), one[pair[0]][1] + one[pair[1]][0]) for pair in pairs
    )
