"""Four utterances with known errors, for tests of scores and reports."""

from asr_core.text.scoring import Utterance

UTTERANCES = [
    Utterance("u1", "the cat sat".split(), "the cat sat".split(), "ann"),
    Utterance("u2", "a cat".split(), "a hat hat".split(), "bob"),
    Utterance("u3", ["cat"], [], "bob"),
    Utterance("u4", [], ["um"], ""),
]
