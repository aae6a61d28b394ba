"""The word error rate of a quick search at the end of epochs."""

from dataclasses import dataclass
from typing import Callable, Iterable, Sequence, Tuple, cast

from torch import nn

from asr_core.data.batch import Batch
from asr_core.models.asr_model import AsrModel
from asr_core.training.options import SpeechOptions
from asr_core.training.task import Measurement, TaskData


@dataclass(eq=False)
class WordErrorMetric:
    """The word error rate of a greedy search on some validation cuts.

    Attributes:
      search: (model, batches, number of cuts) -> (errors, words, cuts).
      opts: how often to measure, and on how many cuts.
      num_ranks: number of processes that share the cuts.
    """

    search: Callable[[AsrModel, Iterable[Batch], int], Tuple[int, int, int]]
    opts: SpeechOptions
    num_ranks: int = 1

    def due(self, epoch: int) -> bool:
        """Return whether to measure at the end of ``epoch``."""
        return epoch % self.opts.valid_wer_interval == 0

    def count(self, model: nn.Module, data: TaskData) -> Sequence[float]:
        """Decode this rank's share of the cuts; return errors, words and cuts."""
        share = max(1, self.opts.valid_wer_cuts // (len(data.valid_sets) * self.num_ranks))
        found = [
            self.search(cast(AsrModel, model), cast(Iterable[Batch], data.valid_batches(name)), share)
            for name in data.valid_sets
        ]
        return [sum(column) for column in zip(*found)]

    def result(self, counts: Sequence[float]) -> Measurement:
        """Return the word error rate in per cent."""
        errors, words, cuts = (int(count) for count in counts)
        rate = 100.0 * errors / max(1, words)
        return Measurement(
            kind="wer",
            text=f"greedy search on {cuts} validation cuts: %WER {rate:.2f} [{errors} / {words}]",
            record={"wer": round(rate, 4), "errors": errors, "words": words, "cuts": cuts},
            scalars={"valid_wer": rate},
        )
