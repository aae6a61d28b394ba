"""Speech synthesis with the C interface of eSpeak NG."""

import ctypes
import shutil
import tempfile
from typing import List

import numpy as np

from asr_core.utils.errors import UserError

# <espeak-ng/speak_lib.h>
_SYNCHRONOUS = 2
_RATE, _PITCH, _RANGE, _WORDGAP = 1, 3, 4, 7
_UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """A synthesiser whose output depends only on its earlier utterances.

    eSpeak NG keeps that state in static variables, so each instance loads its own copy of the
    library.

    Attributes:
      sample_rate: sampling rate of the output of :meth:`say`, in Hz.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as e:
            raise UserError("synthesis needs the package espeakng-loader: pip install espeakng-loader") from e
        with tempfile.TemporaryDirectory() as folder:
            self._lib = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder))
        self._lib.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.sample_rate = self._lib.espeak_Initialize(
            _SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0
        )
        if self.sample_rate <= 0:
            raise UserError("eSpeak NG fails to start; reinstall the package espeakng-loader")
        self._lib.espeak_ng_SetRandSeed(1)  # for the noise in breathy voices
        ctypes.CDLL(None).srand(1)  # for that of whispering ones, which comes from the C library
        self._blocks: List[np.ndarray] = []
        self._callback = _CALLBACK(self._receive)  # C holds no reference, so keep one
        self._lib.espeak_SetSynthCallback(self._callback)

    def say(
        self, text: str, voice: str, rate: int, pitch: int, pitch_range: int, word_gap: int
    ) -> np.ndarray:
        """Synthesise an utterance; return its samples (num_samples,), float32 in [-1, 1].

        Args:
          text: English text.
          voice: accent and variant, such as ``en-us+f3``.
          rate: words per minute, 80 to 450.
          pitch, pitch_range: 0 to 100; 50 is the voice's own.
          word_gap: pause between words, in units of 10 ms at the default rate.
        """
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"eSpeak NG has no voice {voice}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range), (_WORDGAP, word_gap)):
            self._lib.espeak_SetParameter(parameter, value, 0)
        self._blocks.clear()
        data = text.encode() + b"\0"
        self._lib.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        return np.concatenate(self._blocks).astype(np.float32) / 32768.0

    def close(self) -> None:
        """Free the synthesiser's resources; it cannot be used afterwards."""
        self._lib.espeak_Terminate()

    def _receive(self, samples, count, events) -> int:  # noqa: ANN001  (C types)
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
