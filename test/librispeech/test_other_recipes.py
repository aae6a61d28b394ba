"""The programs of the other models' folders, one after the other, on a miniature LibriSpeech."""

import pytest
from librispeech_recipe import check_results, run

DATA = "--full-libri 0 --num-buckets 2 --num-workers 0 --num-threads 1 --device cpu --max-duration 30".split()
QUICK = "--num-epochs 1 --average-period 2 --save-every-n 4 --log-interval 1".split()
HEADS = "--decoder-dim 32 --joiner-dim 32".split()
CONFORMER = [
    "--num-encoder-layers",
    1,
    "--encoder-dim",
    32,
    "--nhead",
    2,
    "--feedforward-dim",
    48,
    "--front-end-channels",
    4,
    *HEADS,
]
ZIPFORMER1 = (
    "--num-encoder-layers 1 --feedforward-dims 32 --nhead 4 --encoder-dims 32 --attention-dims 32 "
    "--encoder-unmasked-dims 24"
).split()
ZIPFORMER = (
    "--num-encoder-layers 1,1 --downsampling-factor 1,2 --encoder-dim 32,48 --encoder-unmasked-dim 24 "
    "--feedforward-dim 48 --num-heads 2 --cnn-module-kernel 15,7 --causal 1"
).split()
CHUNKS = "--chunk-size 16 --left-context-frames 64".split()

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(mini_librispeech, tmp_path):
    """A runner of programs on the miniature corpus; ``recipe.check`` checks a method's results."""

    def call(program, *arguments, epoch=True, data=False):
        where = ["--exp-dir", tmp_path]
        if data:
            where += ["--manifest-dir", mini_librispeech.manifest_dir, "--num-workers", 0]
        if epoch:
            where += ["--epoch", 1, "--avg", 1, "--use-averaged-model", 0]
        return run(program, *where, *arguments)

    call.train = lambda folder, *arguments: call(
        f"{folder}/train",
        *arguments,
        *DATA,
        *QUICK,
        "--bpe-model",
        mini_librispeech.lang_dir / "bpe.model",
        epoch=False,
        data=True,
    )
    call.check = lambda method, prefix: check_results(
        tmp_path / method, prefix, len(mini_librispeech.texts["test-clean"])
    )
    call.flac = sorted((mini_librispeech.dl_dir / "LibriSpeech/test-clean").rglob("*.flac"))[0]
    call.tokens = mini_librispeech.lang_dir / "bpe.model"
    call.folder = tmp_path
    return call


def test_conformer(recipe):
    recipe.train("conformer", *CONFORMER, "--causal", 1)
    recipe("conformer/decode", data=True)
    recipe.check("greedy_search", "-epoch-1_avg-1")
    recipe("conformer/streaming_decode", *CHUNKS, data=True)
    recipe.check("streaming/greedy_search", "_greedy-search_epoch-1_avg-1")
    recipe("conformer/export", "--jit", 1, *CHUNKS)
    script = recipe.folder / "jit_script_chunk_16_left_64.pt"
    assert run("conformer/jit_pretrained_streaming", "--nn-model-filename", script, recipe.flac).startswith(
        f"{recipe.flac}: "
    )


def test_conformer_rnnt(recipe):
    recipe.train("conformer_rnnt", *CONFORMER, "--predictor-embedding-dim", 8)
    recipe("conformer_rnnt/decode", "--decoding-method", "greedy_search", data=True)
    recipe.check("greedy_search", "-epoch-1_avg-1")
    recipe("conformer_rnnt/export")
    recipe("conformer_rnnt/export", "--jit", 1)
    files = (
        ("--checkpoint", recipe.folder / "pretrained.pt"),
        ("--nn-model-filename", recipe.folder / "jit_script.pt"),
    )
    first, second = (run("conformer_rnnt/pretrained", *file, recipe.flac) for file in files)
    assert first == second and first.startswith(f"{recipe.flac}: ")


def test_contextnet(recipe):
    recipe.train("contextnet", "--alpha", 0.0625, *HEADS)
    recipe("contextnet/decode", data=True)
    recipe.check("greedy_search", "-epoch-1_avg-1")
    assert run("contextnet/pretrained", "--checkpoint", recipe.folder / "epoch-1.pt", recipe.flac).startswith(
        f"{recipe.flac}: "
    )


def test_zipformer_ctc(recipe):
    recipe.train("zipformer_ctc", *ZIPFORMER, "--use-cr-ctc", 1, "--enable-spec-aug", 0)
    recipe("zipformer_ctc/decode", data=True)
    recipe.check("ctc-greedy-search", "-epoch-1_avg-1")
    recipe("zipformer_ctc/streaming_decode", *CHUNKS, data=True)
    recipe.check("streaming/ctc-greedy-search", "_ctc-greedy-search_epoch-1_avg-1")


def test_the_tutorial(recipe):
    folder = "pruned_transducer_stateless7_streaming"
    chunk = ["--decode-chunk-len", 32]
    recipe.train(folder, *ZIPFORMER1, *HEADS)
    recipe(f"{folder}/export", "--bpe-model", recipe.tokens, *chunk)
    (recipe.folder / "epoch-999.pt").symlink_to("pretrained.pt")
    recipe(f"{folder}/decode", "--epoch", 999, *chunk, data=True)
    recipe.check("greedy_search", "-epoch-999_avg-1_chunk-16_left-context-64")
    recipe(f"{folder}/streaming_decode", "--num-decode-streams", 100, *chunk, data=True)
    recipe.check("streaming/greedy_search", "_greedy-search_epoch-1_avg-1_chunk-16_left-context-64")
    recipe(f"{folder}/export", "--bpe-model", recipe.tokens, *chunk, "--jit", 1)
    recipe(f"{folder}/jit_trace_export", "--bpe-model", recipe.tokens, *chunk)
    parts = [
        f"--{part}-model-filename {recipe.folder}/{part}_jit_trace.pt"
        for part in ("encoder", "decoder", "joiner")
    ]
    told = {
        run(
            f"{folder}/pretrained",
            "--checkpoint",
            recipe.folder / "pretrained.pt",
            "--method",
            "greedy_search",
            *chunk,
            recipe.flac,
        ),
        run(f"{folder}/jit_pretrained", "--nn-model-filename", recipe.folder / "cpu_jit.pt", recipe.flac),
        run(
            f"{folder}/jit_trace_pretrained",
            *" ".join(parts).split(),
            "--bpe-model",
            recipe.tokens,
            *chunk,
            recipe.flac,
        ),
    }
    assert len(told) == 1 and told.pop().startswith(f"{recipe.flac}: ")
