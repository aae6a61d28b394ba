"""The parts of the check, in the order of their importance; this module imports no torch."""

from typing import List, NamedTuple, Tuple

CARD, RESULTS, TIMES = range(3)  # stages: what others need, what may run side by side, what must not


class Part(NamedTuple):
    """A part of the check.

    Attributes:
      name: its name.
      module: the module of this package whose ``items`` lists what it does.
      about: what it finds out.
      stage: CARD, RESULTS or TIMES.
      limit: seconds that it may take.
      item_limit: seconds that one of its items may take before its process is replaced.
      argument: handed to ``items``.
    """

    name: str
    module: str
    about: str
    stage: int
    limit: float
    item_limit: float = 60.0
    argument: str = ""


FAMILIES = {
    "activations": "Swoosh, BiasNorm, balancer, whitening",
    "attention": "attention weights",
    "convolution": "depthwise convolutions, ConvNeXt",
    "rnnt": "RNN-T losses",
    "optimizer": "ScaledAdam and averages",
    "data": "features and augmentation",
}
PARTS: Tuple[Part, ...] = (
    Part("card", "part_card", "card, driver, versions; speed of copies and matrix products", CARD, 60, 40),
    Part("digits", "part_digits", "the data of the training parts", CARD, 120, 100),
    *(
        Part(
            f"kernels-{family}", "part_kernels", f"results of the kernels: {about}", RESULTS, 120, 60, family
        )
        for family, about in FAMILIES.items()
    ),
    Part(
        "operators", "part_operators", "torch.compile sees operators and computes the same", RESULTS, 90, 60
    ),
    Part(
        "models", "part_models", "losses, encoders and searches on the GPU and on the CPU", RESULTS, 120, 60
    ),
    *(
        Part(
            f"training-{dtype}",
            "part_training",
            f"fifty steps and a resume, {dtype}",
            RESULTS,
            240,
            150,
            dtype,
        )
        for dtype in ("float32", "bfloat16", "float16")
    ),
    Part("processes", "part_processes", "two processes on one GPU by gloo, NCCL", RESULTS, 240, 110),
    Part("steps", "part_steps", "a training step of small, medium and large models", TIMES, 200, 120),
    Part("losses", "part_losses", "RNN-T losses against their torch forms", TIMES, 60, 40),
    Part("syncs", "part_syncs", "host synchronisations and the profile of a step", TIMES, 90, 60),
    Part("rtfx", "part_rtfx", "decoding: seconds of audio per second", TIMES, 150, 150),
    Part(
        "times", "part_times", "times of the kernels, against the best that the card could do", TIMES, 120, 30
    ),
)


def named(name: str) -> Part:
    """Return the part of this name."""
    return next(part for part in PARTS if part.name == name)


def chosen(names: str) -> List[Part]:
    """Return the parts whose names begin with one of ``names``, comma-separated; all by default."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if not any(part.name.startswith(name) for part in PARTS)]
    if unknown:
        raise SystemExit(f"--parts {unknown[0]}: there is no such part; see --list")
    return [part for part in PARTS if not wanted or any(part.name.startswith(name) for name in wanted)]
