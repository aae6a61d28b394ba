"""A Conformer with a stateless transducer; it streams if trained with ``--causal 1``."""

BASE = "../librispeech.py"
EXP_DIR = "conformer/exp"
ENCODER = "conformer"
DEFAULTS = {"train": {"model_size": "icefall"}}
