"""Speed of decoding."""

from typing import NamedTuple


class Speed(NamedTuple):
    """Speed of decoding some audio.

    Attributes:
      audio_seconds: duration of the audio.
      compute_seconds: time spent in encoder and search.
      total_seconds: time from the first batch to the last, with loading and writing.
    """

    audio_seconds: float
    compute_seconds: float
    total_seconds: float

    @property
    def rtf(self) -> float:
        """Seconds of encoder and search for each second of audio; 0 without audio."""
        return self.compute_seconds / self.audio_seconds if self.audio_seconds else 0.0

    @property
    def rtfx(self) -> float:
        """Seconds of audio for each second of encoder and search; 0 where none has passed."""
        return self.audio_seconds / self.compute_seconds if self.compute_seconds else 0.0

    @property
    def total_rtfx(self) -> float:
        """Seconds of audio for each second in all; 0 where none has passed."""
        return self.audio_seconds / self.total_seconds if self.total_seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.audio_seconds:.1f} s of audio in {self.total_seconds:.1f} s, RTFx {self.total_rtfx:.1f}; "
            f"encoder and search {self.compute_seconds:.1f} s, RTFx {self.rtfx:.1f}"
        )
