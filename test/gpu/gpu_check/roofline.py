"""What a card could do at best, from the bytes and operations of the cases."""

import importlib
from typing import List, NamedTuple

from gpu_check.cases import Case, Work
from gpu_check.parts import FAMILIES

ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}


class Peak(NamedTuple):
    """Rates of a card, by its data sheet, without sparsity.

    Attributes:
      name: what ``torch.cuda.get_device_name`` contains.
      bandwidth: GB/s of its memory.
      half: TFLOP/s of matrix products in bfloat16 and float16.
      tf32: likewise of float32 with tf32 allowed.
      float32: TFLOP/s outside the matrix units.
    """

    name: str
    bandwidth: float
    half: float
    tf32: float
    float32: float

    def matrix(self, dtype: str) -> float:
        """Return the TFLOP/s of matrix products of a type."""
        return self.float32 if dtype == "float32" else self.half


# The first whose name occurs in the card's counts.
PEAKS = (
    Peak("B200", 8000, 2250, 1125, 75),
    Peak("GH200", 4000, 989, 495, 67),
    Peak("H200", 4800, 989, 495, 67),
    Peak("H100 PCIe", 2000, 756, 378, 51),
    Peak("H100 NVL", 3900, 835, 418, 60),
    Peak("H100", 3350, 989, 495, 67),
    Peak("A100-SXM4-80GB", 2039, 312, 156, 19.5),
    Peak("A100 80GB", 1935, 312, 156, 19.5),
    Peak("A100", 1555, 312, 156, 19.5),
    Peak("L40S", 864, 362, 183, 91.6),
    Peak("L4", 300, 121, 60, 30.3),
    Peak("A10", 600, 125, 62, 31.2),
    Peak("RTX 4090", 1008, 165, 83, 82.6),
    Peak("V100", 900, 125, 15.7, 15.7),
    Peak("T4", 320, 65, 8.1, 8.1),
)
H100 = next(peak for peak in PEAKS if peak.name == "H100")


def peak_of(name: str) -> Peak:
    """Return the rates of a card of this name; those of an H100 if it is not known."""
    return next((peak for peak in PEAKS if peak.name in name), H100)


def floor_ms(work: Work, dtype: str, peak: Peak) -> float:
    """Return the milliseconds below which no kernel can do the work."""
    by_memory = work.bytes(ITEMSIZE[dtype]) / (peak.bandwidth * 1e9)
    rate = peak.matrix(dtype) if work.matrix else peak.float32
    return 1000 * max(by_memory, work.flops / (rate * 1e12))


def cases_of(family: str) -> List[Case]:
    """Return the cases of a family."""
    return importlib.import_module(f"gpu_check.cases_{family}").cases()


def table(peak: Peak = H100) -> str:
    """Return a Markdown table of all cases."""
    lines = [
        "| kernel | sizes | type | | MB | GFLOP | bound by | µs at best |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        for case in cases_of(family):
            sizes = ", ".join(f"{name} {size}" for name, size in case.bench.items())
            for direction, of in (("forward", case.forward), ("backward", case.backward)):
                work = of(case.bench) if of is not None else None
                if work is None or work.read + work.written + work.other_bytes == 0:
                    continue
                moved = work.bytes(ITEMSIZE[case.bench_dtype])
                ms = floor_ms(work, case.bench_dtype, peak)
                bound = "memory" if ms <= 1000 * moved / (peak.bandwidth * 1e9) * 1.0001 else "arithmetic"
                lines.append(
                    f"| {case.name} | {sizes} | {case.bench_dtype} | {direction} | {moved / 1e6:.1f} | "
                    f"{work.flops / 1e9:.2f} | {bound} | {1000 * ms:.1f} |"
                )
    return "\n".join(lines)
