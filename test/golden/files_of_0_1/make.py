"""Make the files of this folder, with the code of version 0.1; see README.md beside this script.

python test/golden/files_of_0_1/make.py
"""

import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "helpers"))

import kept_files  # noqa: E402  (in test/helpers)
from kept_doors import run  # noqa: E402
from made_up_corpus import write_corpus  # noqa: E402

HERE = Path(__file__).parent
STEPS = 8  # after which training was interrupted, in the second epoch
LARGE = 2000  # larger tensors are thinned out, see `coarse`
COMMON = f"""--on-the-fly-feats 1 --manifest-dir data/manifests --bpe-model lang/bpe.model --num-mel-bins {kept_files.MELS}
    --max-duration 4 --bucketing-sampler 0 --num-workers 0 --enable-spec-aug 0 --enable-musan 0 --drop-last 0
    --num-epochs 2 --save-every-n 2 --average-period 1 --log-interval 1 --valid-interval 100
    --num-threads 1 --tensorboard 0 --device cpu --warm-step 4 --ref-duration 4""".split()
LIVELY = {"joiner.encoder_proj.weight": 6, "joiner.output_linear.weight": 3, "ctc_output.1.weight": 3}
OPTIONS = {
    "zipformer": """--causal 1 --num-encoder-layers 1,1 --downsampling-factor 1,2 --encoder-dim 8,12
        --encoder-unmasked-dim 8 --feedforward-dim 12 --num-heads 2 --query-head-dim 4 --value-head-dim 4 --pos-dim 8
        --cnn-module-kernel 7 --chunk-size 16,-1 --left-context-frames 32,-1 --decoder-dim 8 --joiner-dim 12 --use-ctc 1
        --keep-last-k 2 --ema-decay 0.9 --base-lr 0.03 --warmup-batches 4""",
    "conformer": """--encoder conformer --num-encoder-layers 2 --encoder-dim 12 --nhead 2 --feedforward-dim 16
        --cnn-module-kernel 5 --front-end-channels 4 --norm-eps 1e-5 --decoder-dim 8 --joiner-dim 12 --use-ctc 1
        --use-attention-decoder 1 --attention-decoder-dim 12 --attention-decoder-num-layers 1 --attention-decoder-num-heads 2
        --attention-decoder-attention-dim 12 --attention-decoder-feedforward-dim 16 --intermediate-ctc-stacks 1
        --optimizer adam --schedule noam --base-lr 0.01 --warmup-batches 4 --l2 1e-6 --clip-grad-norm 5""",
    "contextnet": """--encoder contextnet --block-channels 24,24,32 --block-layers 1,2,1 --block-strides 2 --predictor lstm
        --decoder-dim 8 --predictor-hidden-dim 12 --predictor-embedding-dim 8 --predictor-noise-start 0
        --predictor-layer-norm 1 --joiner-dim 12 --joiner-mode gated --loss full --optimizer adamw --schedule hold
        --base-lr 0.005 --warmup-batches 2 --hold-batches 3 --decay-batches 4""",
    "lstm": """--encoder lstm --num-encoder-layers 2 --encoder-dim 12 --rnn-hidden-size 16 --dim-feedforward 16
        --chunk-size 16 --left-context-frames 32 --decoder-dim 8 --joiner-dim 12 --transducer-type hat --blank-logit-bias -3 --base-lr 0.03
        --warmup-batches 4 --schedule eden2""",
    "zipformer1": """--encoder zipformer1 --num-encoder-layers 1,1 --feedforward-dims 16 --nhead 2 --encoder-dims 8,12
        --attention-dims 8 --encoder-unmasked-dims 8 --zipformer-downsampling-factors 1,2 --cnn-module-kernels 5
        --num-left-chunks 2 --decoder-dim 8 --joiner-dim 12 --schedule piecewise --lr-pieces 2:0.01,4:0.03:linear,9:0.001:loglinear""",
}
LM_COMMON = """--lm-data lang/sorted_lm_data.pt --lm-data-valid lang/lm_data-valid.pt --vocab-size 18 --lr 0.02 --batch-size 4
    --num-epochs 2 --save-every-n 2 --keep-last-k 1 --average-period 1 --log-interval 1 --num-threads 1 --tensorboard 0 --device cpu
    --warmup-batches 3""".split()
LM_OPTIONS = {
    "rnn": "--embedding-dim 12 --hidden-dim 12 --num-layers 1",
    "transformer": "--encoder-dim 16 --embedding-dim 8 --dim-feedforward 16 --nhead 2 --num-layers 2 --tie-weights 0",
}
TEXT = ["ABC CAB", "BED DEAF FACE", "EBB", "FACE BED ABC EBB", "DEAF CAB", "BED BED"]


def coarse(name, value):
    """A tensor rounded to three binary digits, so that it needs little room when it is compressed.

    Of a large one all but 16 of 1024 values are made 0; averages of its squared gradients equal.
    """
    if not value.is_floating_point() or value.numel() == 1:
        return value
    if value.numel() > LARGE:
        if "avg_sq" in name:
            value = value.mean().expand_as(value)
        else:
            value = 8 * value * (torch.arange(value.numel()) // 16 % 64 == 0).view(value.shape)
    mantissa, exponent = torch.frexp(value)
    return torch.ldexp((8 * mantissa).round() / 8, exponent).to(value.dtype).contiguous()


def simplify(path):
    """Make the values of a checkpoint coarse, and let its model answer with many different tokens."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("model", "model_avg", "model_ema"):
        noise, state = torch.Generator().manual_seed(0), content.get(key, {})
        for name, value in state.items():
            if value.dim() > 1 and "batch_norm" not in name:
                drawn = torch.randn(value.shape, generator=noise, dtype=torch.float64)
                value = value + (0.5 * drawn / value[0].numel() ** 0.5).to(value.dtype)
            value = value * LIVELY.get(name, 1)
            state[name] = coarse(name, value)
    for state in content["optimizer"]["state"].values():
        state.update({name: coarse(name, value) for name, value in state.items() if torch.is_tensor(value)})
    torch.save(content, path)


def train(name, argv):
    """Train and simplify the checkpoints; returns what comes when the run goes on from either."""
    folder = Path(name)
    folder.mkdir()
    (folder / "command.json").write_text(json.dumps(argv) + "\n")
    kept_files.training(name, folder, "--max-steps", STEPS)
    for path in {p.resolve() for p in folder.glob("*.pt")}:
        if path.name.startswith("best"):
            path.unlink()
        else:
            simplify(path)
    lines = kept_files.records(folder)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({**r, "time": 0.0}) + "\n" for r in lines))
    shutil.rmtree(folder / "log")
    (folder / "loss.png").unlink(missing_ok=True)
    return {
        "interrupted": kept_files.resumed(name),
        "after an epoch": kept_files.resumed(name, "--start-epoch", 2),
    }


def make_lang():
    """Tokens, and the data of language models."""
    import sentencepiece

    Path("lang").mkdir()
    Path("text").write_text("\n".join(TEXT * 4) + "\n")
    Path("text-valid").write_text("\n".join(TEXT[::2]) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input="text", model_prefix="lang/bpe", vocab_size=18, model_type="bpe", unk_id=2, bos_id=-1, eos_id=-1,
        user_defined_symbols=["<blk>", "<sos/eos>"], minloglevel=2, normalization_rule_name="identity",
    )  # fmt: skip
    Path("lang/bpe.vocab").unlink()
    for text, name in (("text", ""), ("text-valid", "-valid")):
        more = [] if name else ["--sorted-archive", "lang/sorted_lm_data.pt"]
        data = ["--lm-data", text, "--lm-archive", f"lang/lm_data{name}.pt"]
        run("prepare_lm_data", "--bpe-model", "lang/bpe.model", *data, *more)
    Path("lang/lm_data.pt").unlink()


def export(encoder):
    """Write the exported files of a run."""
    where = [*kept_files.SELECT, "--exp-dir", encoder]
    kinds = kept_files.RUNS_OF[encoder][1]
    run("export", *where)
    if "jit_script" in kinds:
        whole = ["--chunk-size", -1, "--left-context-frames", -1] if encoder == "zipformer" else []
        run("export", *where, "--jit", 1, *whole)
    if "chunks" in kinds:
        run("export", *where, "--jit", 1, *kept_files.CHUNKS)
    if "traced" in kinds:
        run("jit_trace_export", *where, *kept_files.CHUNKS)


def without_debug_information(path):
    """Write a script anew without the names of source files, which no one needs who loads it."""
    with zipfile.ZipFile(path) as archive:
        chosen = [
            (i.filename, archive.read(i)) for i in archive.infolist() if not i.filename.endswith(".debug_pkl")
        ]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in chosen:
            archive.writestr(zipfile.ZipInfo(name), data)


def calibrate():
    """Keep results of decoding, declare some words right, and calibrate confidences by them."""
    greedy = ["--decoding-method", "greedy_search", "--write-confidence", 1]
    transcripts, made = kept_files.decoded("greedy_search/timestamps-*.jsonl", *greedy)
    Path("stored/recogs-valid.txt").write_text(transcripts)
    for i, record in enumerate(made):
        record["ref"] = record["text"] if i % 2 else "NOTHING ALIKE"
    path = Path("stored/timestamps-valid.jsonl")
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    run("calibrate_confidence", path, "--exp-dir", "zipformer")


def pack(name, folders):
    """Compress folders into one archive without owners and times."""

    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
        for folder in folders:
            archive.add(folder, filter=plain)
    (HERE / f"{name}.tar.xz").write_bytes(buffer.getvalue())


def rounded(value):
    """JSON values with floats of seven digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def main():
    """Make all files, and what belongs to them, in the current folder."""
    torch.set_num_threads(1)
    write_corpus("data")
    make_lang()
    run("compute_fbank", "--src-dir", "data/manifests", "--output-dir", "stored", "--prefix", "tones",
             "--parts", "valid", "--num-mel-bins", kept_files.MELS, "--nj", 1)  # fmt: skip
    expected, arrays = {}, {}
    for encoder, options in OPTIONS.items():
        keep = [] if "--keep-last-k" in options else ["--keep-last-k", "1"]
        expected[encoder] = train(encoder, [*COMMON, *keep, *options.split()])
        export(encoder)
    for kind, options in LM_OPTIONS.items():
        name = f"{kind}_lm"
        expected[name] = train(name, ["--lm-type", kind, *LM_COMMON, *options.split()])
        for jit in (0, 1):
            run("export_lm", "--lm-type", kind, "--exp-dir", name, "--epoch", 1, "--jit", jit)
        expected[name]["sentences"] = kept_files.sentence_scores(kind, name)
        expected[name]["perplexity"] = kept_files.perplexity(kind)
    for path in Path().glob("*/*jit*.pt"):
        without_debug_information(path)
    calibrate()
    for encoder, (_, kinds) in kept_files.RUNS_OF.items():
        for kind in kinds:
            arrays[f"{encoder} {kind}"], expected[encoder][kind] = kept_files.heard(encoder, kind)
            if kind not in ("averaged", "ema"):  # which no file holds by itself
                expected[encoder][f"{kind}, transcribed"] = kept_files.transcribed(encoder, kind)
    for kind in kept_files.LMS:
        expected[f"{kind}_lm"]["fusion"] = kept_files.fused(kind)
        arrays.update({f"{kind}_lm {i}": value for i, value in enumerate(kept_files.script_scores(kind))})
    expected["scores"] = kept_files.scores()
    for name in OPTIONS | {f"{kind}_lm": "" for kind in kept_files.LMS}:
        pack(name, [name])
    pack("data", ["lang", "stored"])
    np.savez_compressed(HERE / "encoder_output.npz", **arrays)
    text = json.dumps(rounded(expected), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    (HERE / "expected.json").write_text(text.replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        main()
        os.chdir(HERE)
