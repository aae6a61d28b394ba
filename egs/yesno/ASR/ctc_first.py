"""Training in which CTC comes first and the transducer takes over."""

from typing import Collection, Dict

from asr_core.bin.recipe import load_file
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.utils.options import from_params

CtcFirstOptions = load_file("recipe.py", beside=__file__).CtcFirstOptions


class CtcFirst(AsrRecipe):
    """A training in which the weight of the CTC loss falls linearly to its final value.

    A transducer that starts from nothing stays for many batches on a plateau on which it does not
    distinguish the two words. CTC leaves it sooner, and its larger weight takes the encoder along.
    """

    def loss_weights(self, batch_idx_train: int, heads: Collection[str]) -> Dict[str, float]:
        """Return the usual weights, with a larger one for CTC in the first batches."""
        opts = from_params(CtcFirstOptions, self.params)
        weights = super().loss_weights(batch_idx_train, heads)
        if batch_idx_train < opts.ctc_decay_batches:
            final, left = weights["ctc_loss"], 1 - batch_idx_train / opts.ctc_decay_batches
            weights["ctc_loss"] = final + left * (opts.ctc_start_scale - final)
        return weights
