"""Options of the loop that make no sense."""

import pytest

from asr_core.training.options import LoopOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"world_size": 0}, "--world-size must be at least 1"),
        ({"use_fp16": True, "use_bf16": True}, "exclude each other"),
        ({"save_every_n": 10}, "must not be less than --average-period"),
        ({"keep_last_k": 0}, "--keep-last-k must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        from_params(LoopOptions, changes).validate()
