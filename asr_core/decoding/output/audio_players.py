"""Players for a report: links to recordings, or the sound itself. Not a program of its own."""

import base64
import io
import logging
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote

_BYTES = 1e6


def linked_players(audio: Dict[str, Any], folder: Path) -> Dict[str, Any]:
    """A player for each utterance of ``audio``, by id, that links to its file from a page in ``folder``.

    Args:
      audio: :class:`~asr_core.decoding.offline.Audio` by utterance id.
      folder: where the page will be.
    """
    from asr_core.text.html_report import Player

    players = {}
    for cut_id, a in audio.items():
        link = quote(Path(os.path.relpath(a.path, folder)).as_posix())
        players[cut_id] = Player(f"{link}#t={a.start:.3f},{a.start + a.duration:.3f}", a.start)
    return players


def embedded_players(
    audio: Dict[str, Any], most_wrong_first: List[Tuple[int, str]], megabytes: float
) -> Dict[str, Any]:
    """Players that hold their sound as 16-bit WAV; what does not fit into ``megabytes`` gets none.

    Args:
      audio: as of :func:`linked_players`.
      most_wrong_first: (errors, utterance id), in the order in which utterances are taken.
      megabytes: limit of all sound together, as text in the page.
    """
    from asr_core.text.html_report import Player

    players: Dict[str, Any] = {}
    left, missing = megabytes * _BYTES, 0
    for _, cut_id in most_wrong_first:
        wav = _wav(audio[cut_id]) if cut_id in audio else None
        if wav is None:
            missing += 1
            continue
        text = base64.b64encode(wav).decode("ascii")
        if len(text) > left:
            break
        left -= len(text)
        players[cut_id] = Player(f"data:audio/wav;base64,{text}")
    if len(players) + missing < len(most_wrong_first):
        logging.info(
            "the report holds the audio of %d of %d utterances; see --embed-limit",
            len(players),
            len(most_wrong_first),
        )
    if missing:
        logging.warning("the audio of %d utterances could not be read", missing)
    return players


def _wav(audio: Any) -> Optional[bytes]:
    """The sound of an utterance as a WAV file; None if it cannot be read."""
    import soundfile

    try:
        rate = soundfile.info(audio.path).samplerate
        first = round(audio.start * rate)
        samples, _ = soundfile.read(
            audio.path, start=first, stop=first + round(audio.duration * rate), dtype="int16", always_2d=True
        )
    except (RuntimeError, OSError):
        return None
    out = io.BytesIO()
    soundfile.write(
        out, samples[:, min(audio.channel, samples.shape[1] - 1)], rate, format="WAV", subtype="PCM_16"
    )
    return out.getvalue()


def players_for(audio: Dict[str, Any], score: Any, details: Any, folder: Path) -> Dict[str, Any]:
    """The players that the options ``details`` ask for; arguments as above."""
    if not details.embed_audio:
        return linked_players(audio, folder)
    order = sorted(
        zip((errors for errors, _ in score.per_utterance), (cut_id for cut_id, _ in score.details)),
        key=lambda x: (-x[0], x[1]),
    )
    return embedded_players(audio, order, details.embed_limit)
