"""Word errors of a quick search while a model trains."""

from typing import Any, Callable, Iterable, List, Mapping, NamedTuple

import torch

from asr_core.decoding.ctc.greedy import ctc_greedy_search
from asr_core.decoding.offline import collate
from asr_core.decoding.padding import pad_for_encoder, searched_frames
from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.text.scoring import Utterance, score_utterances


class WordErrors(NamedTuple):
    """Errors of a search: how many, in how many words of how many cuts."""

    errors: int
    words: int
    cuts: int


class GreedyErrors:
    """Measures the word errors of a greedy search, with the transducer or, where there is none, with the CTC head.

    Args:
      decode: token ids -> text.
      normalize: text as it is scored.
    """

    def __init__(self, decode: Callable[[List[int]], str], normalize: Callable[[str], str]) -> None:
        self.decode = decode
        self.normalize = normalize

    def __call__(self, model: Any, batches: Iterable[Mapping[str, Any]], max_cuts: int) -> WordErrors:
        """Decode the first ``max_cuts`` utterances of ``batches``; ``model`` is in evaluation mode.

        A causal model that trains with several chunk sizes is decoded with the first of them.
        """
        utterances: List[Utterance] = []
        for batch in batches:
            wanted = max_cuts - len(utterances)
            if wanted <= 0:
                break
            texts = batch["supervisions"]["text"][:wanted]
            for text, hypothesis in zip(texts, self._search(model, batch, len(texts))):
                words = self.decode(hypothesis.tokens).split()
                utterances.append(Utterance(str(len(utterances)), self.normalize(text).split(), words))
        counts = score_utterances(utterances).per_utterance
        return WordErrors(sum(errors for errors, _ in counts), sum(words for _, words in counts), len(counts))

    # no_grad, for what a module keeps from inference mode could not be used in training
    @torch.no_grad()
    def _search(self, model: Any, batch: Mapping[str, Any], num: int) -> List[Any]:
        sup = batch["supervisions"]
        spans = list(zip(sup["start_frame"].tolist()[:num], sup["num_frames"].tolist()[:num]))
        x, x_lens = collate(
            [batch["inputs"][row, start : start + length] for row, (start, length) in enumerate(spans)]
        )
        device = next(model.parameters()).device
        x, x_lens = x.to(device), x_lens.to(device)
        causal = bool(model.encoder.causal)
        chunk_size = int(model.encoder.chunk_size[0]) if causal else -1
        encoder_out, lens = model.forward_encoder(
            *pad_for_encoder(x, x_lens, causal, chunk_size, model.geometry)
        )
        if causal and chunk_size > 0:
            lens = torch.minimum(lens, searched_frames(x_lens, model.geometry))
        search = greedy_search if model.use_transducer else ctc_greedy_search
        return search(model, encoder_out, lens.to(torch.int64))
