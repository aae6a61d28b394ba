"""Small recordings for tests."""

import numpy as np

TEXTS = ("one two", "three", "four five six", "seven eight nine zero")


def tone(seconds: float, rate: int = 16000, pitch: float = 440.0, seed: int = 0) -> np.ndarray:
    """A tone in some noise, (num_samples,) float32."""
    n = round(seconds * rate)
    noise = np.random.default_rng(seed).standard_normal(n)
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(n) / rate) + 0.01 * noise).astype(np.float32)
