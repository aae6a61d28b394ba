"""waves_yesno: sixty recordings of eight Hebrew words each, yes or no (OpenSLR 1)."""

from asr_core.data.corpus import Corpus


class YesNo(Corpus):
    """Utterances of eight words out of YES and NO."""

    name = "yesno"
    defaults = {
        "exp_dir": "exp",
        "bpe_model": "data/lang_bpe_9/bpe.model",
        "max_duration": 30.0,
        "bucketing_sampler": False,
        "drop_last": False,
        "num_workers": 0,
    }
