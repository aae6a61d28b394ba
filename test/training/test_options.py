"""Options of the loop that make no sense."""

import pytest

from asr_core.bin import train, train_lm
from asr_core.data.corpus import Corpus
from asr_core.training.options import LoopOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"world_size": 0}, "--world-size must be at least 1"),
        ({"use_fp16": True, "use_bf16": True}, "exclude each other"),
        ({"compile": True, "inf_check": True}, "--compile 1 and --inf-check 1 exclude each other"),
        ({"compile": True, "activation_checkpointing": "layer"}, "--activation-checkpointing exclude"),
        ({"save_every_n": 10}, "must not be less than --average-period"),
        ({"keep_last_k": 0}, "--keep-last-k must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        from_params(LoopOptions, changes).validate()


class Nothing(Corpus):
    name = "nothing"


@pytest.mark.parametrize(
    "argv, epochs, period",
    [
        ([], 3, 50),
        (["--max-steps", "500000"], 500000, 50),
        (["--max-st", "2"], 3, 50),
        (["--max-steps", "500000", "--num-ep=3"], 3, 50),
        (["--save-every-n", "20"], 3, 20),
        (["--save-every-n", "100"], 3, 50),
        (["--save-every-n", "20", "--average-period", "10"], 3, 10),
        (["--save-every-n", "20", "--average-period", "50"], 3, 50),
    ],
)
def test_defaults_follow_what_is_given(argv, epochs, period):
    defaults = {"num_epochs": 3, "average_period": 50}
    of_speech = train.parse(Nothing, defaults=defaults, argv=argv)
    of_language = train_lm.parse("rnn", defaults, argv)
    for params in (of_speech, of_language):
        assert (params.num_epochs, params.average_period) == (epochs, period)
        if period > params.save_every_n:
            with pytest.raises(
                UserError, match="--save-every-n 20 must not be less than --average-period 50"
            ):
                from_params(LoopOptions, params).validate()
        else:
            from_params(LoopOptions, params).validate()
