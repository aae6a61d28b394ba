"""Players for a report: links to recordings, or the sound itself."""

import base64
import io
import logging
import os
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple
from urllib.parse import quote

import soundfile

from asr_core.data.audio import read_span
from asr_core.decoding.output.options import EmbedOptions
from asr_core.decoding.output.utterance import Audio
from asr_core.text.html_report import Player
from asr_core.text.scoring import Score

_BYTES_PER_MEGABYTE = 1e6


def players_for(
    audio: Mapping[str, Audio], score: Score, opts: EmbedOptions, folder: Path
) -> Dict[str, Player]:
    """Make the players of a report.

    Args:
      audio: audio of utterances, by id.
      score: the errors of each utterance.
      opts: options of embedding the audio.
      folder: folder of the report.
    """
    if not opts.embed_audio:
        return linked_players(audio, folder)
    order = sorted(
        zip((errors for errors, _ in score.per_utterance), (cut_id for cut_id, _ in score.alignments)),
        key=lambda x: (-x[0], x[1]),
    )
    return embedded_players(audio, order, opts.embed_limit)


def linked_players(audio: Mapping[str, Audio], folder: Path) -> Dict[str, Player]:
    """Make players that link to the files of utterances from a page in ``folder``."""
    players = {}
    for cut_id, a in audio.items():
        link = quote(Path(os.path.relpath(a.path, folder)).as_posix())
        players[cut_id] = Player(f"{link}#t={a.start:.3f},{a.start + a.duration:.3f}", a.start)
    return players


def embedded_players(
    audio: Mapping[str, Audio], most_wrong_first: List[Tuple[int, str]], megabytes: float
) -> Dict[str, Player]:
    """Make players that embed the audio as 16-bit WAV, as much as the limit allows.

    Args:
      audio: audio of utterances, by id.
      most_wrong_first: (errors, utterance id), in the order in which utterances are taken.
      megabytes: limit of all sound together, as text in the page.
    """
    players: Dict[str, Player] = {}
    left, missing = megabytes * _BYTES_PER_MEGABYTE, 0
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


def _wav(audio: Audio) -> Optional[bytes]:
    """Return the sound of an utterance as a WAV file; None if it cannot be read."""
    try:
        samples, rate = read_span(audio.path, audio.start, audio.duration)
    except Exception:  # the readers raise many kinds; the report is worth having without this player
        return None
    out = io.BytesIO()
    channel = samples[min(audio.channel, len(samples) - 1)]
    soundfile.write(out, channel, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()
