"""Recordings without words, for which a recognizer must write nothing."""

from typing import Callable, Sequence

import numpy as np
from scipy.fft import irfft, rfft

Sound = Callable[[np.random.Generator, int, int], np.ndarray]


def silence(rng: np.random.Generator, size: int, rate: int) -> np.ndarray:
    """Return digital silence (size,), as a muted microphone gives it."""
    return np.zeros(size)


def noise(rng: np.random.Generator, size: int, rate: int) -> np.ndarray:
    """Return noise (size,) with a falling spectrum, whose level may go up and down."""
    spectrum = rfft(rng.standard_normal(size))
    spectrum /= np.maximum(1, np.arange(len(spectrum)) * 50 / len(spectrum)) ** rng.uniform(0, 1.5)
    samples = irfft(spectrum, size)
    if rng.random() < 0.5:
        levels = rng.uniform(-30, 0, 2 + size // (rate // 4))  # in dB, four a second
        at = np.linspace(0, len(levels) - 1, size)
        samples *= 10 ** (np.interp(at, np.arange(len(levels)), levels) / 20)
    return samples


def hum(rng: np.random.Generator, size: int, rate: int) -> np.ndarray:
    """Return the hum (size,) of a mains supply, with overtones, in some noise."""
    base = 2 * np.pi * rng.choice([50.0, 60.0]) * np.arange(size) / rate
    tones = sum(rng.random() / n * np.sin(n * base + rng.uniform(0, 6)) for n in range(1, 8))
    return tones + 10 ** (-rng.uniform(10, 40) / 20) * rng.standard_normal(size)


def clicks(rng: np.random.Generator, size: int, rate: int) -> np.ndarray:
    """Return clicks (size,) of 1 to 30 ms, as of keys and doors, in some noise."""
    samples = 10 ** (-rng.uniform(30, 60) / 20) * rng.standard_normal(size)
    for start in rng.integers(0, size, rng.integers(1, 8)):
        length = min(int(rate * rng.uniform(0.001, 0.03)), size - start)
        samples[start : start + length] += rng.standard_normal(length) * np.exp(
            -np.arange(length) * 5 / length
        )
    return samples


def tones(rng: np.random.Generator, size: int, rate: int) -> np.ndarray:
    """Return chords (size,) that fade, two a second, as of a simple instrument."""
    samples, step = np.zeros(size), rate // 2
    for start in range(0, size, step):
        at = np.arange(min(rate, size - start)) / rate
        for key in rng.integers(0, 36, rng.integers(1, 4)):
            pitch = 110.0 * 2 ** (key / 12)
            wave = sum(np.sin(2 * np.pi * n * pitch * at) / n**2 for n in range(1, 5))
            samples[start : start + len(at)] += wave * np.exp(-at * rng.uniform(2, 8))
    return samples


SOUNDS: Sequence[Sound] = (silence, noise, noise, hum, clicks, tones)


def draw_sound(rng: np.random.Generator, rate: int) -> np.ndarray:
    """Draw 1 to 5 s of a random sound, (num_samples,) float32, at -60 to -3 dB of full scale."""
    sound = SOUNDS[rng.integers(len(SOUNDS))]
    samples = sound(rng, int(rate * rng.uniform(1, 5)), rate)
    peak = 10 ** (rng.uniform(-60, -3) / 20)
    return (samples * peak / max(np.abs(samples).max(), 1e-9)).astype(np.float32)
