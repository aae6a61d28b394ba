"""Code that the tests of kept files share with the script that made these files."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from kept_doors import (
    LmOptions,
    SearchOptions,
    StreamBatch,
    collate,
    decode_streams,
    load_averaged_model,
    load_for_inference,
    load_lm,
    load_traced,
    run,
    searched,
    streaming_search,
)

FOLDER = Path(__file__).parents[1] / "golden" / "files_of_0_1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
WHERE = {"interrupted": [], "after an epoch": ["--start-epoch", 2]}  # what each asks of the program
MELS, CHUNK, LEFT = 12, 16, 32
SELECT = ["--epoch", "1", "--avg", "1", "--use-averaged-model", "0"]
CHUNKS = ["--chunk-size", str(CHUNK), "--left-context-frames", str(LEFT)]
TRANSDUCER = ["greedy_search", "modified_beam_search", "fast_beam_search"]
CTC = ["ctc-greedy-search", "ctc-prefix-beam-search"]
ATTENTION = ["ctc-prefix-beam-search-attention-decoder-rescoring"]
# Of each run, by its encoder: the searches that its heads allow, and the kinds of file that are
# kept.
RUNS_OF = {
    "zipformer": (
        [*TRANSDUCER, *CTC],
        ["epoch", "averaged", "ema", "pretrained", "jit_script", "chunks"],
    ),
    "conformer": ([*TRANSDUCER, *CTC, *ATTENTION], ["epoch", "pretrained", "jit_script"]),
    "contextnet": (TRANSDUCER, ["epoch", "pretrained", "jit_script"]),
    "lstm": (TRANSDUCER, ["epoch", "pretrained", "chunks", "traced"]),
    "zipformer1": (TRANSDUCER, ["epoch", "pretrained", "chunks", "traced"]),
}
LMS = ("rnn", "transformer")
SENTENCES = [[3, 4, 5, 6, 7], [8], [9, 10, 3, 3], []]


def assert_alike(found, expected, rel=1e-5, tiny=1e-4):
    """Compare JSON values: numbers with a tolerance, all else exactly."""
    if isinstance(expected, dict):
        assert list(found) == list(expected) or sorted(found) == sorted(expected)
        for key, value in expected.items():
            assert_alike(found[key], value, rel, tiny)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_alike(one, other, rel, tiny)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rel, abs=tiny)
    else:
        assert found == expected


def unpack(folder):
    """Unpack all archives of kept files into a folder."""
    for path in sorted(FOLDER.glob("*.tar.xz")):
        with tarfile.open(path) as archive:
            archive.extractall(folder)


def training(name, exp_dir, *argv):
    """Train with the options of a kept run, whose folder is ``name``; returns the records of the
    run.

    Args:
      name: which run; language models have names that end in ``_lm``.
      exp_dir: the folder to train in.
      argv: further options.
    """
    program = "train_lm" if name.endswith("_lm") else "train"
    told = json.loads((Path(name) / "command.json").read_text())
    run(program, *told, "--exp-dir", exp_dir, *argv, status=0)
    return records(exp_dir)


def records(exp_dir):
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (Path(exp_dir) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("rate", "time")} for line in lines]


def resumed(name, *argv):
    """Return the results of continuing a copy of a kept run to the end of its second epoch.

    Args:
      name: which run, see :func:`training`.
      argv: further options.

    Returns:
      Its further records, and the sizes of its last weights.
    """
    again = Path(f"{name}-again")
    shutil.copytree(name, again)
    try:
        before = records(name)
        lines = training(name, again, *argv)
        kept = [line for line in lines if line in before]
        return {"records": lines[len(kept) :], "sizes": sizes(again / "epoch-2.pt")}
    finally:
        shutil.rmtree(again)


def sizes(path):
    """Norms of what a checkpoint holds, each over all parameters together.

    Returns:
      That of the weights, those of the distances of the averages from them, and those of the
      optimizer's values by name; the number of updates of the exponential average.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    weights = {name: v.double() for name, v in content["model"].items() if v.is_floating_point()}
    out = {"model": norm(weights.values()), "ema_updates": content.get("ema_updates", 0)}
    for average in ("model_avg", "model_ema"):
        if average in content:
            out[average] = norm(content[average][name] - value for name, value in weights.items())
    states = content["optimizer"]["state"].values()
    for name in sorted({name for state in states for name in state} - {"step"}):
        out[name] = norm(state[name] for state in states if name in state)
    return out


def norm(tensors):
    """The norm of all values of some tensors together."""
    return float(sum(v.double().square().sum() for v in tensors) ** 0.5)


def features():
    """Made-up features of three utterances, (T, C)."""
    rng = np.random.default_rng(1)
    steps = [np.round(4 * rng.standard_normal((t, MELS)) - 16) / 2 for t in (151, 97, 61)]
    return [torch.tensor(x, dtype=torch.float32) for x in steps]


def open_model(encoder, kind):
    """The model of a kept run from one of its files: (model, causal, streaming)."""
    folder = Path(encoder)
    if kind == "traced":
        parts = [folder / f"{part}_jit_trace.pt" for part in ("encoder", "decoder", "joiner")]
        return load_traced(*parts), True, True
    if kind in ("pretrained", "jit_script", "chunks"):
        name = f"jit_script_chunk_{CHUNK}_left_{LEFT}" if kind == "chunks" else kind
        loaded = load_for_inference(str(folder / f"{name}.pt"))
        return loaded.model, loaded.causal, loaded.streaming
    if kind == "averaged":
        last = max(int(p.stem.split("-")[1]) for p in folder.glob("checkpoint-*.pt"))
        model, params = load_averaged_model(folder, epoch=0, iter=last, avg=1, use_averaged_model=True)
    else:
        model, params = load_averaged_model(
            folder, epoch=1, iter=0, avg=1, use_averaged_model=False, use_ema=kind == "ema"
        )
    return model.eval(), bool(model.encoder.causal), False


def heard(encoder, kind):
    """Return the output of a kept file's model for the made-up features.

    Files that stream get them chunk by chunk. All others get whole utterances, and causal models
    of which the chunk can be chosen, whole utterances in chunks as well.

    Returns:
      Encoder output (of streams that of the first chunk, else each fourth frame of the last way),
      and hypotheses by search.
    """
    model, causal, streaming = open_model(encoder, kind)
    methods, hypotheses = RUNS_OF[encoder][0], {}
    if streaming:
        window = 2 * CHUNK + model.geometry.look_ahead
        x = torch.stack([f[:window] for f in features()])
        with torch.inference_mode():
            output, *_ = model.streaming_forward(
                x, torch.full((len(x),), window), model.get_init_states(len(x))
            )
        for method in methods:
            streams = StreamBatch(
                model, streaming_search(model, SearchOptions(decoding_method=method)), CHUNK
            )
            found = dict(decode_streams(streams, enumerate(features()), 2))
            hypotheses[f"{method}, streams"] = [found[i] for i in range(len(found))]
        return output.numpy(), plain(hypotheses)
    x, lens = collate(features())
    for chunk in [-1, CHUNK] if causal and kind != "jit_script" else [-1]:
        if causal and kind != "jit_script":
            model.set_chunk(chunk, LEFT if chunk > 0 else -1)
        for method in methods:
            encoder_out, results = searched(model, x, lens, method, causal, chunk)
            for name, found in results.items():
                if name in ("", "attention_scale_0.1", "attention_scale_1.0"):
                    hypotheses[f"{method}{name and f' {name}'}, chunk {chunk}"] = found
    return encoder_out[:, ::4].numpy(), plain(hypotheses)


def plain(hypotheses):
    """Hypotheses as JSON values."""
    names = ("tokens", "timestamps", "log_prob")
    return {key: [{n: getattr(h, n) for n in names} for h in found] for key, found in hypotheses.items()}


def transcribed(encoder, kind):
    """Return the transcripts of two recordings by the transcription program with a run's file."""
    files = ["data/audio/valid-0.wav", "data/audio/valid-1.wav"]
    common = ["--num-threads", 1, "--json", 1, "--device", "cpu"]
    if kind == "traced":
        parts = [
            (f"--{p}-model-filename", f"{encoder}/{p}_jit_trace.pt") for p in ("encoder", "decoder", "joiner")
        ]
        out = run("jit_trace_pretrained", *common, *(word for pair in parts for word in pair), *files)
    else:
        name = (
            f"jit_script_chunk_{CHUNK}_left_{LEFT}"
            if kind == "chunks"
            else {"epoch": "epoch-1"}.get(kind, kind)
        )
        out = run("transcribe", *common, "--model", f"{encoder}/{name}.pt", "--confidence", 1, *files)
    return [json.loads(line) for line in out.splitlines()]


def decoded(results, *argv):
    """Decode the kept stored features with the Zipformer; transcripts and records of words.

    Args:
      results: a pattern for the file of these records in the folder of the run.
      argv: options of decoding.
    """
    stored = ["--manifest-dir", "stored", "--num-workers", 0, "--num-threads", 1, "--device", "cpu"]
    run("decode", "--exp-dir", "zipformer", *SELECT, *stored, "--skip-scoring", 1, *argv)
    (path,) = Path("zipformer").glob(results)
    (recogs,) = path.parent.glob("recogs-*.txt")
    found = recogs.read_text(), [json.loads(line) for line in path.read_text().splitlines()]
    shutil.rmtree(path.parent)
    return found


def sentence_scores(kind, folder):
    """Log-probabilities of sentences by the language model in ``epoch-1.pt`` of a folder."""
    lm = load_lm(LmOptions(lm_exp_dir=str(folder), lm_epoch=1), 18, lm_type=kind)
    return lm.sentence_log_probs(SENTENCES).tolist()


def script_scores(kind):
    """Return the scores of a kept TorchScript language model.

    Returns:
      Costs of sentences (N, L), log-probabilities of what follows some tokens, and one token more.
    """
    script = torch.jit.load(f"{kind}_lm/cpu_jit.pt")
    x = torch.tensor([[1, 3, 4, 5], [1, 8, 1, 1]])
    y = torch.tensor([[3, 4, 5, 1], [8, 1, 1, 1]])
    costs = script(x, y, torch.tensor([4, 2]))
    states = (torch.zeros(1, 2, 12),) * 2 if kind == "rnn" else (torch.zeros(4, 2, 0, 16),)
    first, *states = script.score_token(x[:, :2], *states)
    second, *_ = script.score_token(x[:, 2:3], *states)
    return [costs.detach().numpy(), first.detach().numpy(), second.detach().numpy()]


def perplexity(kind):
    """Return the printed perplexities of the kept validation data."""
    data = ["--lm-data", "lang/lm_data-valid.pt", "--device", "cpu"]
    return run("lm_perplexity", "--lm-type", kind, "--exp-dir", f"{kind}_lm", "--epoch", 1, *data)


def fused(kind):
    """Decode the stored features with a language model; the records, with confidences of words."""
    lm = ["--lm-exp-dir", f"{kind}_lm", "--lm-epoch", 1, "--lm-type", kind, "--lm-scale", 0.5]
    method = ["--decoding-method", "modified_beam_search_lm_shallow_fusion", "--write-confidence", 1]
    return decoded(f"*/timestamps-*_{kind}-lm-*.jsonl", *lm, *method)[1]


def scores():
    """Return what the scoring program prints for the kept results of decoding."""
    return run(
        "score",
        "--hyp",
        "stored/recogs-valid.txt",
        "stored/timestamps-valid.jsonl",
        "--ref",
        "stored/recogs-valid.txt",
    )
