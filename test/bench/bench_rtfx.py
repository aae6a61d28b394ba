"""Seconds of audio decoded per second (RTFx), by model, precision, batch and method, with the peak
memory.

    python test/bench/bench_rtfx.py                                  # one hour, Zipformer-S, M and L
    python test/bench/bench_rtfx.py --seconds 120 --models small --max-durations 60 --device cpu
    python test/bench/bench_rtfx.py --exp-dir exp --epoch 30 --avg 5 --wavs test/*.wav

Models have random weights of a fixed seed, with the blank's bias set so that about one frame in six
emits a token, as in read English; or they are trained (--exp-dir). The audio is noise whose level
changes, in utterances as long as LibriSpeech's (1.5 to 35 s, 12.3 s on average); or files (--wavs).
Language models, phrases and graphs that methods need are made up. The column "differ" has the share
of utterances whose tokens are not those of the first precision.
Encoder and search are timed with the features in memory, after one pass to warm up.
"""

import argparse
import dataclasses
import functools
import json
import platform
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from made_up_resources import made_up_resources
from tiny_options import OPTIONS as TINY

from asr_core.data.audio import load_audio
from asr_core.data.features import extract_features
from asr_core.decoding.device.replay import forget
from asr_core.decoding.encoding import collate, encode_features
from asr_core.decoding.method import BEST
from asr_core.decoding.model_loading import load_checkpoint_model
from asr_core.decoding.offline import OfflineDecoder
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.precision import set_precision
from asr_core.decoding.registry import get_method
from asr_core.decoding.resources import Resource
from asr_core.lm.options import RnnOptions
from asr_core.models.build import build_model
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.models.options import ModelOptions
from asr_core.utils.device import pick_device
from asr_core.utils.options import from_params

RATE = 16000
EMITTING = 1 / 6  # share of frames with a token


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", default="small,medium,large", help="presets of Zipformer; or tiny")
    parser.add_argument("--exp-dir", default="", help="a trained model instead")
    parser.add_argument("--epoch", type=int, default=30)
    parser.add_argument("--avg", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3600.0, help="of audio")
    parser.add_argument("--wavs", nargs="*", default=[], help="audio files instead of noise")
    parser.add_argument("--max-durations", default="600,1800", help="seconds of batches")
    parser.add_argument(
        "--methods",
        default="greedy_search,modified_beam_search,fast_beam_search,ctc-greedy-search,ctc-prefix-beam-search",
    )
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--vocab-size", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="", help="files OUT.md and OUT.json")
    args = parser.parse_args(argv)
    for name in ("models", "max_durations", "methods", "dtypes"):
        setattr(args, name, [part for part in getattr(args, name).split(",") if part])
    return args


def main(argv=None):
    args = arguments(argv)
    device = pick_device(args.device)
    features, seconds, rate = features_of(tuple(args.wavs), args.seconds, args.seed)
    rows = [{"method": "features on the CPU", "rtfx": rate}]
    with torch.inference_mode():
        for name in [args.exp_dir] if args.exp_dir else args.models:
            tokens = {}
            for dtype in args.dtypes:
                model = trained(args) if args.exp_dir else untrained(name, args, features[0])
                set_precision(model.to(device), dtype, device)
                for row in rows_of(model, features, device, args):
                    key = (row["method"], row["max_duration"])
                    first = tokens.setdefault(key, row["tokens"])
                    wrong = sum(a != b for a, b in zip(first, row.pop("tokens"))) / max(1, len(first))
                    size = sum(p.numel() for p in model.parameters()) / 1e6
                    rows.append({"model": name, "M": size, "dtype": dtype, **row, "differ": wrong})
                    print(line(rows[-1]), flush=True)
    write(rows, device, seconds, args.out)
    return rows


@functools.lru_cache(maxsize=2)
def features_of(wavs, seconds, seed):
    """Return the features (T, F) of each utterance, the seconds of audio, and those per second."""
    audio = [load_audio(path, RATE) for path in wavs] or list(noise(seconds, seed))
    begin = time.perf_counter()
    features = [extract_features(samples, RATE) for samples in audio]
    total = sum(map(len, audio)) / RATE
    return features, total, total / (time.perf_counter() - begin)


def noise(seconds, seed):
    """Yield the samples of utterances, ``seconds`` in all: noise with the rhythm of syllables."""
    rng = np.random.default_rng(seed)
    left = seconds
    while left > 0:
        # a beta distribution with LibriSpeech's bounds and mean
        length = min(1.5 + 33.5 * rng.beta(1.3, 2.73), max(left, 0.5))
        left -= length
        samples = rng.standard_normal(int(length * RATE), dtype=np.float32)
        time_axis = np.arange(len(samples), dtype=np.float32) / RATE
        level = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time_axis + rng.uniform(0, 6))
        yield torch.from_numpy((0.1 * samples * level).astype(np.float32))


def trained(args):
    checkpoint = CheckpointOptions(exp_dir=args.exp_dir, epoch=args.epoch, avg=args.avg)
    return load_checkpoint_model(checkpoint, {})[0]


def untrained(name, args, features):
    """A model of random weights that emits as often as a trained one."""
    torch.manual_seed(args.seed)
    options = TINY if name == "tiny" else {"model_size": name}
    model = build_model(from_params(ModelOptions, {**options, "use_ctc": True}), args.vocab_size).eval()
    x, x_lens = collate([features])
    encoder_out, _ = encode_features(model, x, x_lens)
    context = torch.full((1, model.decoder.context_size), model.decoder.blank_id)
    with torch.no_grad():
        model.joiner.output_linear.weight.mul_(4)
        logits = model.joiner(encoder_out, model.decoder(context, False))
        model.joiner.output_linear.bias[0] += margin(logits)
        model.ctc_output[1].bias[0] += margin(model.ctc_output(encoder_out))
    return model


def margin(logits):
    """What blank lacks to be the best in most frames."""
    lead = logits[..., 1:].max(dim=-1).values - logits[..., 0]
    return float(lead.flatten().quantile(1 - EMITTING))


def rows_of(model, features, device, args):
    """Yield a row for each batch size and method."""
    for max_duration in map(float, args.max_durations):
        batches = list(batches_of(features, max_duration))
        audio_seconds = sum(len(f) for f in features) / 100
        common = {"max_duration": max_duration, "batches": len(batches)}
        encode_all(model, batches[:1], device)
        reset_memory(device)
        seconds = timed(lambda: encode_all(model, batches, device), device)  # noqa: B023
        encoder = {"method": "encoder alone", "rtfx": audio_seconds / seconds, "memory": memory(device)}
        yield {**common, **encoder, "tokens": []}
        for method in args.methods:
            opts = dataclasses.replace(SearchOptions(), decoding_method=method, lodr_lm_scale=-0.1)
            resources = resources_of(method, model, device, args)
            decoder = OfflineDecoder(model=model, opts=opts, device=device, resources=resources)
            list(decoder.decode(batches))
            reset_memory(device)
            found = []
            seconds = timed(lambda: found.extend(decoder.decode(batches)), device)  # noqa: B023
            tokens = [d.hypotheses[BEST].tokens for d in sorted(found, key=lambda d: d.cut_id)]
            yield {
                **common,
                "method": method,
                "rtfx": audio_seconds / seconds,
                "memory": memory(device),
                "tokens_per_second": sum(map(len, tokens)) / audio_seconds,
                "tokens": tokens,
            }
            forget()


def resources_of(name, model, device, args):
    """What the method needs, made up: an LSTM as large as icefall's, bigrams, a lexicon."""
    method = get_method(name)
    neural = RnnOptions(*(64, 64, 2) if args.models == ["tiny"] else ())
    wanted = set(method.needs)
    if method.expects_one_of:
        wanted |= {Resource.NEURAL_LM, Resource.LODR_NGRAM}
    return made_up_resources(wanted, model.vocab_size, device, args.seed, neural, words=10 * model.vocab_size)


def batches_of(features, max_duration):
    """Yield batches of at most ``max_duration`` seconds with padding, the longest first."""
    waiting = sorted(range(len(features)), key=lambda i: -len(features[i]))
    while waiting:
        number = max(1, int(100 * max_duration) // len(features[waiting[0]]))
        rows, waiting = waiting[:number], waiting[number:]
        x, lens = collate([features[i] for i in rows])
        yield {
            "inputs": x,
            "supervisions": {
                "cut": [
                    SimpleNamespace(id=f"{i:06}", duration=len(features[i]) / 100, supervisions=[])
                    for i in rows
                ],
                "sequence_idx": torch.arange(len(rows)),
                "start_frame": torch.zeros(len(rows), dtype=torch.int64),
                "num_frames": lens,
            },
        }


def encode_all(model, batches, device):
    for batch in batches:
        encode_features(model, batch["inputs"], batch["supervisions"]["num_frames"], device=device)


def timed(work, device):
    """Return the seconds that ``work`` takes, on the device, too."""
    wait(device)
    begin = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begin


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_memory(device):
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory(device):
    """Return the peak in GiB: of the GPU since the reset, or of the process since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


COLUMNS = {
    "model": "",
    "M": ".1f",
    "dtype": "",
    "max_duration": ".0f",
    "batches": "",
    "method": "",
    "rtfx": ".1f",
    "memory": ".2f",
    "tokens_per_second": ".2f",
    "differ": ".3f",
}


def line(row):
    """Return a row of the table."""
    cells = (format(row[name], form) if name in row else "" for name, form in COLUMNS.items())
    return f"| {' | '.join(cells)} |"


def write(rows, device, seconds, out):
    """Write the table and its JSON."""
    machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "audio_seconds": seconds,
    }
    head = "| model | million parameters | dtype | batch, s | batches | method | RTFx | peak, GiB | tokens/s | differ |"
    rule = "|" + "---|" * len(COLUMNS)
    table = "\n".join([", ".join(f"{k} {v}" for k, v in machine.items()), "", head, rule, *map(line, rows)])
    print(table)
    if out:
        Path(f"{out}.md").write_text(table + "\n")
        Path(f"{out}.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
