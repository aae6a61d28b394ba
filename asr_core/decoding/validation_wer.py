"""Word errors of a quick search while a model trains."""

import itertools
from typing import Callable, Iterable, List, NamedTuple, cast

import torch

from asr_core.data.batch import Batch
from asr_core.decoding.ctc.greedy import ctc_greedy_search
from asr_core.decoding.device.choice import greedy
from asr_core.decoding.device.replay import forget
from asr_core.decoding.encoding import collate, encode_features, supervised_features
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.protocol import RecognitionModel
from asr_core.encoders.chunk_options import Chunk
from asr_core.models.asr_model import AsrModel
from asr_core.text.scoring import Utterance, score_utterances


class WordErrors(NamedTuple):
    """Errors of a search.

    Attributes:
      errors: insertions, deletions and substitutions of words.
      words: reference words.
      cuts: utterances.
    """

    errors: int
    words: int
    cuts: int


class GreedyErrors:
    """Word errors of a greedy search with the transducer, or with CTC if the model has none.

    Args:
      decode: maps token ids to text.
      normalize: changes text before it is scored.
    """

    def __init__(self, decode: Callable[[List[int]], str], normalize: Callable[[str], str]) -> None:
        self.decode = decode
        self.normalize = normalize

    def __call__(self, model: AsrModel, batches: Iterable[Batch], max_cuts: int) -> WordErrors:
        """Decode the first ``max_cuts`` utterances of ``batches``; ``model`` is in evaluation mode.

        A causal model that trains with several chunk sizes is decoded with the first of them.
        """
        try:
            utterances = self._utterances(model, batches, max_cuts)
        finally:
            # Training needs the memory; and the optimizer's kernels change weights in a way that a
            # search that is kept does not notice.
            forget()
        counts = score_utterances(utterances).per_utterance
        return WordErrors(
            errors=sum(errors for errors, _ in counts),
            words=sum(words for _, words in counts),
            cuts=len(counts),
        )

    def _utterances(self, model: AsrModel, batches: Iterable[Batch], max_cuts: int) -> List[Utterance]:
        """Decode the first ``max_cuts`` utterances."""
        utterances: List[Utterance] = []
        for batch in batches:
            wanted = max_cuts - len(utterances)
            if wanted <= 0:
                break
            texts = batch["supervisions"]["text"][:wanted]
            for text, hypothesis in zip(texts, self._search(model, batch, len(texts))):
                words = self.decode(hypothesis.tokens).split()
                utterances.append(Utterance(str(len(utterances)), self.normalize(text).split(), words))
        return utterances

    # no_grad: what a module keeps from inference mode could not be used in training
    @torch.no_grad()
    def _search(self, model: AsrModel, batch: Batch, num: int) -> List[Hypothesis]:
        """Search the first ``num`` utterances of a batch."""
        device = next(model.parameters()).device
        x, x_lens = collate(list(itertools.islice(supervised_features(batch, device), num)))
        chunk = Chunk(model.encoder.chunk_size[0], -1) if model.encoder.causal else None
        encoder_out, lens = encode_features(model, x, x_lens, chunk, device)
        search = greedy if model.use_transducer else ctc_greedy_search
        return search(cast(RecognitionModel, model), encoder_out, lens)
