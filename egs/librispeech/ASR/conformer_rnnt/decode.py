#!/usr/bin/env python3
"""Decode test-clean and test-other and score the transcripts; --chunk-size and --left-context-frames simulate streaming."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.decode import main

DEFAULTS = {
    "encoder": "conformer",
    "exp_dir": "conformer_rnnt/exp",
    "bpe_model": "data/lang_bpe_1024/bpe.model",
    "epoch": 30,
    "use_ema": True,  # with it, --avg is 1
    "decoding_method": "alignment_length_sync_search",  # of a model with CTC: give a method
    "beam_size": 8,
    "on_the_fly_feats": True,
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS)
