"""Transcribe audio files with a training checkpoint, a pretrained.pt or a TorchScript file."""

import argparse
import dataclasses
import sys
from typing import Mapping, Optional, Sequence

from asr_core.cli.decoding_arguments import add_model_options
from asr_core.cli.program import run_program
from asr_core.serving.options import TranscribeOptions
from asr_core.utils.options import Parser, add_options, params_of

_OF_FEATURES = ("sample_rate", "feature_type")


def add_arguments(
    parser: Parser, defaults: Optional[Mapping[str, object]] = None, without: Sequence[str] = ()
) -> None:
    """Add the audio files and :class:`TranscribeOptions`, except those named in ``without``."""
    parser.add_argument(
        "sound_files",
        nargs="+",
        metavar="FILE",
        help="audio files: wav, flac, mp3, ogg, ...; any rate; of several channels see --channel",
    )
    names = {field.name for field in dataclasses.fields(TranscribeOptions)}.difference(without)
    # the form of the features comes from the model's file, unless it is given
    all_defaults = {**dict.fromkeys(_OF_FEATURES, argparse.SUPPRESS), **(defaults or {})}
    add_options(parser, TranscribeOptions, all_defaults, names)


def main(defaults: Optional[Mapping[str, object]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; the exit status is 1 if a file could not be transcribed.

    Args:
      defaults: defaults of the recipe's options, by name.
      argv: the command line, by default this process'.
    """
    parser = Parser(__doc__)
    add_arguments(parser, defaults)
    add_model_options(parser, defaults, argv)
    params = params_of(parser.parse_args(argv))

    def body() -> None:
        from asr_core.serving.transcription import transcribe_files

        if transcribe_files(params, params.sound_files):
            sys.exit(1)

    run_program(body)


if __name__ == "__main__":
    main()
