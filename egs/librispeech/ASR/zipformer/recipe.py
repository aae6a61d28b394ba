"""A Zipformer transducer; ``--model-size`` chooses a published size."""

BASE = "../librispeech.py"
EXP_DIR = "zipformer/exp"
DEFAULTS = {"finetune": {"exp_dir": EXP_DIR}}
