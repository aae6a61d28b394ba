"""Training data of language models: the archive holds the text, sorting keeps it, batches hold each
sentence once.
"""

from pathlib import Path

import pytest
import torch

from asr_core.bin import prepare_lm_data
from asr_core.lm.archive import LmArchive, batches_of
from asr_core.text.tokenizer import Tokenizer
from asr_core.text.train_tokenizer import train_tokenizer
from asr_core.utils.errors import UserError

TEXT = (
    "THE CAT SAT ON THE MAT\nA CAT\n\nTHAT MAT AND THIS HAT\nA HAT AND A CAT AND A MAT ON THE HAT\nTHIS CAT\n"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text").write_text(TEXT)
    train_tokenizer(folder / "text", folder, 18)
    outputs = {
        "lm-archive": "lm_data.pt",
        "sorted-archive": "sorted_lm_data.pt",
        "statistics": "statistics.txt",
    }
    written = [word for name, file in outputs.items() for word in (f"--{name}", str(folder / file))]
    prepare_lm_data.main(["--bpe-model", str(folder), "--lm-data", str(folder / "text"), *written])
    return folder


def sentences_of(archive):
    picked = torch.arange(archive.num_sentences)
    return [part.tolist() for part in archive.tokens_of(picked).split(archive.sentence_lengths.tolist())]


def test_the_archive_holds_the_text(made):
    archive, tokenizer = LmArchive.load(made / "lm_data.pt"), Tokenizer.load(made)
    lines = [line for line in TEXT.splitlines() if line]
    assert sentences_of(archive) == tokenizer.encode(lines)
    assert archive.sentence_lengths.tolist() == [len(ids) for ids in tokenizer.encode(lines)]
    assert set(torch.load(made / "lm_data.pt", weights_only=True)) == set(LmArchive._fields)


def test_an_archive_of_icefall():
    """Its file, which k2 1.23.4 saved, is described in `test/golden/k2_files/README.md`."""
    archive = LmArchive.load(Path(__file__).parent.parent / "golden/k2_files/lm_data.pt")
    assert sentences_of(archive) == [[3, 4, 6, 6, 7, 5], [5], [6, 6, 7, 6, 6, 7]]
    assert archive.sentence_lengths.tolist() == [6, 1, 6] and archive.pieces is None
    assert sentences_of(archive.sort()) == [[3, 4, 6, 6, 7, 5], [6, 6, 7, 6, 6, 7], [5]]


def test_the_archive_records_the_tokens(made):
    assert LmArchive.load(made / "sorted_lm_data.pt").pieces == Tokenizer.load(made).pieces
    assert LmArchive.load(made / "lm_data.pt")._replace(pieces=None).pieces is None


def test_sorting_puts_the_longest_first_and_loses_nothing(made):
    plain, ordered = LmArchive.load(made / "lm_data.pt"), LmArchive.load(made / "sorted_lm_data.pt")
    sentences = sentences_of(plain)
    assert sentences_of(ordered) == sorted(sentences, key=len, reverse=True)
    assert ordered.sentence_lengths.tolist() == sorted(plain.sentence_lengths.tolist(), reverse=True)
    told = (made / "statistics.txt").read_text()
    assert (
        "sentences: 5\n" in told and "words: 26\n" in told and f"tokens: {sum(map(len, sentences))}\n" in told
    )


def test_some_sentences_in_any_order(made):
    archive = LmArchive.load(made / "lm_data.pt")
    every = sentences_of(archive)
    assert archive.tokens_of(torch.tensor([3, 1, 3])).tolist() == every[3] + every[1] + every[3]
    assert archive.tokens_of(torch.tensor([], dtype=torch.int64)).tolist() == []


def test_batches():
    batches = batches_of([5, 1, 9, 3, 3, 7], 2, 8)
    assert batches == [[5, 0], [3, 4], [1]]
    assert batches_of([], 2, 8) == []


def test_mistakes_are_named(made, tmp_path, capsys):
    with pytest.raises(UserError, match="stage 8"):
        LmArchive.load(tmp_path / "none.pt")
    (tmp_path / "x.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="x.pt is damaged"):
        LmArchive.load(tmp_path / "x.pt")
    torch.save({"model": torch.zeros(1)}, tmp_path / "y.pt")
    with pytest.raises(UserError, match="y.pt is no language-model data"):
        LmArchive.load(tmp_path / "y.pt")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SystemExit):
        prepare_lm_data.main(
            [
                "--bpe-model",
                str(made),
                "--lm-data",
                str(tmp_path / "empty"),
                "--lm-archive",
                str(tmp_path / "z.pt"),
            ]
        )
    assert "has no words" in capsys.readouterr().err
