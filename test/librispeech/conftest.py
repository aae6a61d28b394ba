"""A miniature LibriSpeech, laid out and prepared once a session."""

from types import SimpleNamespace

import pytest
from librispeech_recipe import VOCAB, lay_out, run_prepare
from mini_librispeech import FULL_PARTS


@pytest.fixture(scope="session")
def mini_librispeech(tmp_path_factory):
    """All parts of a miniature LibriSpeech and MUSAN after ``prepare.sh --stage 1 --stop-stage 5``.

    Attributes: ``dl_dir`` (the corpora), ``data_dir``, ``manifest_dir`` (features), ``lang_dir``,
    ``texts`` (transcripts by part), ``arguments`` (of prepare.sh, for later stages).
    """
    dl_dir = tmp_path_factory.mktemp("mini_librispeech")
    counts = {part: 24 if part.startswith("train") else 4 for part in FULL_PARTS}
    texts = lay_out(dl_dir, counts)
    data_dir = dl_dir / "data"
    arguments = ["--dl-dir", dl_dir, "--data-dir", data_dir, "--vocab-sizes", VOCAB, "--nj", 2]
    run_prepare(*arguments, "--stage", 1, "--stop-stage", 5)
    return SimpleNamespace(
        dl_dir=dl_dir,
        data_dir=data_dir,
        manifest_dir=data_dir / "fbank",
        lang_dir=data_dir / f"lang_bpe_{VOCAB}",
        texts=texts,
        arguments=arguments,
    )
