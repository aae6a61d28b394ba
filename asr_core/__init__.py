"""asr_core: speech recognition recipes on one shared core."""

__version__ = "0.1.0"
