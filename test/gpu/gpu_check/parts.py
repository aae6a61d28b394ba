"""The parts of the check, in the order of their importance; this module imports no torch."""

from typing import Dict, List, NamedTuple, Tuple

# The stages, one after the other: the card; whether results are right; the figures that matter
# most; runs of whole programs; all other times.
CARD, RESULTS, FIGURES, RUNS, TIMES = range(5)
ALONE = (CARD, FIGURES, TIMES)  # what takes times runs by itself, the rest side by side
# The share of all the time after which a stage must leave what is left to the later ones.
ENDS: Dict[int, float] = {CARD: 0.15, RESULTS: 0.4, FIGURES: 0.65, RUNS: 0.82, TIMES: 1.0}


class Part(NamedTuple):
    """A part of the check.

    Attributes:
      name: its name.
      module: the module of this package whose ``items`` lists what it does.
      about: what it finds out.
      stage: when it runs.
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
    "activations": "Swoosh, norms, balancer, whitening, gate",
    "attention": "attention weights",
    "convolution": "depthwise convolutions, ConvNeXt",
    "rnnt": "RNN-T losses",
    "optimizer": "ScaledAdam and averages",
    "data": "features and augmentation",
    "search": "look-up in n-grams",
}
PRECISIONS = ("float32", "bfloat16", "float16")
PARTS: Tuple[Part, ...] = (
    Part("card", "part_card", "card, driver, versions; speed of copies and matrix products", CARD, 80, 60),
    *(
        Part(f"kernels-{name}", "part_kernels", f"results of the kernels: {about}", RESULTS, 150, 60, name)
        for name, about in FAMILIES.items()
    ),
    Part("models", "part_models", "losses, encoders and searches on the GPU and on the CPU", RESULTS, 150),
    Part("digits", "part_digits", "the data of the training parts", RESULTS, 150, 120),
    Part(
        "steps", "part_steps", "a training step of the medium model in bfloat16", FIGURES, 120, 110, "first"
    ),
    Part("losses", "part_losses", "RNN-T losses against their torch forms", FIGURES, 70, 40),
    Part("rtfx", "part_rtfx", "decoding: greedy search with the medium model", FIGURES, 100, 90, "first"),
    *(
        Part(
            f"training-{dtype}", "part_training", f"fifty steps and a resume, {dtype}", RUNS, 200, 120, dtype
        )
        for dtype in PRECISIONS
    ),
    Part("processes", "part_processes", "two processes on one GPU by gloo, NCCL", RUNS, 200, 90),
    Part("operators", "part_operators", "torch.compile sees operators and computes the same", RUNS, 200, 95),
    Part("more-steps", "part_steps", "a training step of other sizes and types", TIMES, 120, 60, "others"),
    Part(
        "times", "part_times", "times of the kernels, against the best that the card could do", TIMES, 90, 30
    ),
    Part("syncs", "part_syncs", "host synchronisations and the profile of a step", TIMES, 80, 50),
    Part("more-rtfx", "part_rtfx", "decoding: other methods, sizes and types", TIMES, 150, 60, "others"),
    Part("loaders", "part_loaders", "batches with features of the device, and of loaders", TIMES, 60, 40),
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
