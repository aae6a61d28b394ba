"""Your own recordings, listed in TSV files."""

from asr_core.data.corpus import Corpus


class Custom(Corpus):
    """What prepare.sh made of train.tsv, dev.tsv and test.tsv."""

    name = "custom"
    defaults = {"exp_dir": "exp", "bpe_model": "data/lang_bpe/bpe.model"}
