"""Batches of made-up cuts, each the largest in some respect."""

from types import SimpleNamespace


def cut(name, duration, text="x"):
    return SimpleNamespace(id=name, duration=duration, supervisions=[SimpleNamespace(text=text)])


BATCHES = [  # position in the epoch, cuts
    (0, [cut("long", 20.0)]),
    (1, [cut(f"short{i}", 0.5) for i in range(30)]),
    (2, [cut(f"mid{i}", 5.0 - 0.1 * i) for i in range(5)]),
    (3, [cut(f"talk{i}", 3.0, "x" * 30) for i in range(5)]),
    (4, [cut("plain", 2.0)]),
]
