"""Times of tokens and words.

A search reports the encoder frame that emitted each token. Frame f of an encoder with subsampling
factor s begins at f * s * 10 ms. A transducer or a CTC head is free to emit a token anywhere after
the sound that decides it, so these are times of recognition: the starts are good to a few frames,
the ends are estimates.
"""

from typing import List, NamedTuple, Optional, Sequence

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.text.tokenizer import Tokenizer, WordSpan

FRAME_SHIFT = 0.01  # seconds between feature frames
# Seconds that a word lasts after its last token, unless the next word begins: the last token of a
# word is emitted before its sound has ended.
LONGEST_TAIL = 0.28


class TimedWord(NamedTuple):
    """A word of a hypothesis.

    Attributes:
      word: its spelling.
      start, end: seconds from the start of the utterance; None where the tokens do not spell the
        word.
      confidences: confidences of its tokens; empty if they were not computed.
    """

    word: str
    start: Optional[float]
    end: Optional[float]
    confidences: List[float]


def token_times(hypothesis: Hypothesis, frame_seconds: float, duration: float) -> List[float]:
    """Return the seconds at which each token was emitted.

    They are limited to ``duration``: causal models also search some silence after the utterance.
    """
    return [round(min(frame * frame_seconds, duration), 3) for frame in hypothesis.timestamps]


def timed_words(
    hypothesis: Hypothesis, tokenizer: Tokenizer, frame_seconds: float, duration: float
) -> List[TimedWord]:
    """Return the words of a hypothesis with their times.

    A word starts when its first token was emitted. It ends when the next one starts, but at most
    :data:`LONGEST_TAIL` after the frame of its last token, and not after the utterance.

    Args:
      hypothesis: hypothesis of a search.
      tokenizer: the model's.
      frame_seconds: duration of a frame of encoder output.
      duration: duration of the utterance, in seconds.
    """
    times = token_times(hypothesis, frame_seconds, duration)
    spans = word_places(hypothesis, tokenizer)
    words: List[TimedWord] = []
    for i, span in enumerate(spans):
        if span.first < 0:
            words.append(TimedWord(span.word, None, None, []))
            continue
        begins = [times[s.first] for s in spans[i + 1 :] if s.first >= 0][:1]
        end = min(times[span.last] + frame_seconds + LONGEST_TAIL, duration, *begins)
        confidences = (hypothesis.confidences or [])[span.first : span.last + 1]
        words.append(
            TimedWord(span.word, times[span.first], round(max(end, times[span.first]), 3), confidences)
        )
    return words


def word_places(hypothesis: Hypothesis, tokenizer: Tokenizer) -> List[WordSpan]:
    """Return the words of a hypothesis and the places of their tokens.

    The places are -1 where the tokens do not spell the words that the search knows.
    """
    spans = tokenizer.word_spans(hypothesis.tokens)
    if hypothesis.words is None or hypothesis.words == [span.word for span in spans]:
        return spans
    if len(hypothesis.words) == len(spans):  # a lexicon may write a word otherwise than its tokens do
        return [span._replace(word=word) for word, span in zip(hypothesis.words, spans)]
    return _by_letters(hypothesis.words, spans) or [WordSpan(word, -1, -1) for word in hypothesis.words]


def _by_letters(words: Sequence[str], spans: Sequence[WordSpan]) -> List[WordSpan]:
    """Return ``words`` at the places of the same letters in ``spans``, which divide them otherwise.

    The list is empty if the letters differ.
    """
    if "".join(words) != "".join(span.word for span in spans):
        return []
    letters = [span for span in spans for _ in span.word]
    out, position = [], 0
    for word in words:
        covered = letters[position : position + len(word)]
        position += len(word)
        out.append(WordSpan(word, covered[0].first, covered[-1].last) if covered else WordSpan(word, -1, -1))
    return out
