#!/usr/bin/env python3
"""Check and measure everything of asr_core that runs on a GPU.

    python test/gpu/check.py --out gpu-results
    python test/gpu/check.py --out gpu-results --wheels wheels       # packages missing there, as files
    python test/gpu/check.py --parts kernels-activations,steps
    python test/gpu/check.py --small 1                                # a rehearsal without a GPU
    python test/gpu/check.py --roofline

Each part runs in a process of its own, within a time limit. What has been found so far is written to
check.json and check.md after every item, and to log.txt after every part. When --seconds are over,
the check ends with what it has. The exit status is 1 if anything is red, was not reached, or is
slower than it should be. docs/gpu.md says what the parts are and how to read the tables.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from gpu_check import parts, supervisor, worker  # noqa: E402
from gpu_check.setup import Setup, child_environment, install_wheels  # noqa: E402


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of the results")
    parser.add_argument("--parts", default="", help="names or their beginnings, comma-separated; all")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of packages that are missing here")
    parser.add_argument("--seconds", type=float, default=570.0, help="after which the check ends")
    parser.add_argument("--seconds-per-part", type=float, default=0.0, help="instead of each part's own")
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(2, min(8, (os.cpu_count() or 2) // 2)),
        help="parts that check results run beside each other",
    )
    parser.add_argument("--small", type=int, default=0, help="1: tiny sizes on the CPU, kernels interpreted")
    parser.add_argument("--work-dir", type=Path, help="folder of data and checkpoints; default: temporary")
    parser.add_argument("--list", action="store_true", help="name the parts, and stop")
    parser.add_argument("--roofline", action="store_true", help="print the estimates for an H100, and stop")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)  # the part that this process is
    parser.add_argument("--records", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--skip", default="[]", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main() -> int:
    began = time.monotonic()
    args = arguments()
    if args.list:
        for part in parts.PARTS:
            print(f"{part.name:22} {part.about}")
        return 0
    if args.roofline:
        from gpu_check.roofline import table

        os.environ["ASR_CORE_TRITON"] = "0"
        print(table())
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    if args.work:
        setup = Setup(bool(args.small), args.out.resolve(), args.work_dir)
        return worker.work(parts.named(args.work), setup, args.records, json.loads(args.skip))
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as temporary:
        work_dir = (args.work_dir or Path(temporary)).resolve()
        work_dir.mkdir(parents=True, exist_ok=True)
        for old in work_dir.glob("exp-*"):  # of an earlier check, which train.py would continue
            shutil.rmtree(old)
        setup = Setup(bool(args.small), args.out.resolve(), work_dir)
        note = install_wheels(args.wheels, work_dir / "site") if args.wheels else ""
        environment = child_environment(setup, HERE, work_dir / "site")
        left = args.seconds - (time.monotonic() - began)
        limits = supervisor.Limits(left, args.seconds_per_part, args.jobs)
        command = [sys.executable, str(HERE / "check.py"), "--small", str(args.small)]
        run = supervisor.Run(setup, limits, command, environment, note)
        return run.all(parts.chosen(args.parts))


if __name__ == "__main__":
    sys.exit(main())
