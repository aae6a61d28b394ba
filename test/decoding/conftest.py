"""Fixtures of the decoding tests."""

import pytest
from toy_scorers import ARPA, SYMBOLS

from asr_core.lm.ngram import NgramLm


@pytest.fixture(scope="session")
def ngram(tmp_path_factory):
    """A token bigram over three tokens."""
    path = tmp_path_factory.mktemp("lm") / "2gram.arpa"
    path.write_text(ARPA)
    return NgramLm.from_arpa(path, SYMBOLS)


@pytest.fixture(scope="session")
def toy_lang(tmp_path_factory):
    """The lang folder of toy_lexicon."""
    pytest.importorskip("kaldifst")
    from toy_lexicon import write_lang

    root = tmp_path_factory.mktemp("lang")
    write_lang(root)
    return root
