#!/usr/bin/env python3
"""Time to skip to the middle of an interrupted epoch, against lhotse's own
DynamicBucketingSampler.

Before anything is timed, the batch after the skip is compared with that of an uninterrupted epoch.

  python test/bench/bench_resume_sampler.py --num-cuts 280000 --max-duration 1000
"""

import argparse
import gzip
import json
import random
import tempfile
import time
import warnings
from pathlib import Path

WORDS = "THE OF AND TO A IN THAT HE WAS IT HIS WITH AS FOR HAD BUT NOT AT BE HER ON WHICH HAVE SAID WOULD THEM".split()


def fake_line(number: int, rng: random.Random) -> str:
    """One cut with features as the recipe stores it: LibriSpeech's durations roughly, and 2.7 words
    a second.
    """
    duration = round(
        min(17.0, max(1.3, rng.gauss(13.5, 3.5) if rng.random() < 0.7 else rng.uniform(1.5, 12))), 4
    )
    frames = round(duration * 100)
    name = f"{number // 100}-{number % 97}-{number:06d}"
    text = " ".join(rng.choice(WORDS) for _ in range(int(2.7 * duration)))
    source = {"type": "file", "channels": [0], "source": f"download/LibriSpeech/train-other-500/{name}.flac"}
    samples = int(16000 * duration)
    cut = {
        "id": f"{name}-{number}",
        "start": 0,
        "duration": duration,
        "channel": 0,
        "supervisions": [
            {
                "id": name,
                "recording_id": name,
                "start": 0.0,
                "duration": duration,
                "channel": 0,
                "text": text,
                "language": "English",
                "speaker": "1",
            }
        ],
        "features": {
            "type": "kaldi-fbank",
            "num_frames": frames,
            "num_features": 80,
            "frame_shift": 0.01,
            "sampling_rate": 16000,
            "start": 0,
            "duration": duration,
            "storage_type": "asr_core_flat",
            "storage_path": "data/fbank/librispeech_feats_train-other-500/0001.f16",
            "storage_key": f"{number * 160000},{frames},80",
            "recording_id": name,
            "channels": 0,
        },
        "recording": {
            "id": name,
            "sources": [source],
            "sampling_rate": 16000,
            "num_samples": samples,
            "duration": duration,
            "channel_ids": [0],
        },
        "type": "MonoCut",
    }
    return json.dumps(cut)


def timed(what: str, function):
    """Print how long ``function`` takes; return what it returns."""
    began, busy = time.perf_counter(), time.process_time()
    result = function()
    print(
        f"{what:<64}{time.perf_counter() - began:8.2f} s, {time.process_time() - busy:8.2f} s of CPU",
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-cuts", type=int, default=280000)
    parser.add_argument("--max-duration", type=float, default=1000.0)
    parser.add_argument("--bpe-model", default="", help="count tokens too, as training does")
    parser.add_argument(
        "--lhotse", type=int, default=1, help="0: leave lhotse's sampler out, which takes minutes"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cuts.jsonl.gz"
        rng = random.Random(0)
        with gzip.open(path, "wt", compresslevel=6) as f:
            f.writelines(fake_line(i, rng) + "\n" for i in range(args.num_cuts))
        print(f"{args.num_cuts} cuts, {path.stat().st_size / 1e6:.0f} MB")
        ours(path, args)
        if args.lhotse:
            theirs(path, args.max_duration)


def ours(path: Path, args: argparse.Namespace) -> None:
    """Ours: the data report that precedes training anyway, then the skip."""
    from lhotse import CutSet

    from asr_core.data.cut_refs import load_cut
    from asr_core.data.module import AsrDataModule
    from asr_core.data.options import DataOptions
    from asr_core.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(args.bpe_model) if args.bpe_model else None
    cuts = CutSet.from_jsonl_lazy(path)
    module = AsrDataModule(
        DataOptions(
            max_duration=args.max_duration, enable_spec_aug=False, min_duration=1.0, max_utt_duration=20.0
        ),
        42,
        tokenizer,
    )
    survey = timed("first pass: durations, checks, report (once a run)", lambda: module.survey(cuts))
    whole = timed(
        "all batches of an epoch, nothing loaded", lambda: list(module.train_dataloader(cuts, 3).sampler)
    )
    middle = len(whole) // 2
    sampler = module.train_dataloader(cuts, 3, skip_batches=middle).sampler
    position, refs = timed(f"skip to batch {middle} of {len(whole)}", lambda: next(iter(sampler)))
    assert (position, refs) == whole[middle]
    timed(f"build the {len(refs)} cuts of that batch", lambda: [load_cut(ref) for ref in refs])
    print(f"{survey.utterances} utterances, {survey.seconds / 3600:.1f} hours\n")


def theirs(path: Path, max_duration: float) -> None:
    """lhotse's sampler: every cut is built on the way."""
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler

    def sampler():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = DynamicBucketingSampler(
                CutSet.from_jsonl_lazy(path),
                max_duration=max_duration,
                shuffle=True,
                num_buckets=30,
                buffer_size=30 * 5000,
                drop_last=True,
                seed=42,
            )
        made.set_epoch(3)
        return made

    batches = timed("lhotse: all batches of an epoch", lambda: sum(1 for _ in sampler()))
    state = sampler()
    iter(state)
    for _ in range(batches // 2):
        next(state)
    fresh = sampler()
    timed(
        f"lhotse: load_state_dict to batch {batches // 2} of {batches}",
        lambda: fresh.load_state_dict(state.state_dict()),
    )


if __name__ == "__main__":
    main()
