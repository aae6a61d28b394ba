#!/usr/bin/env python3
"""Export the model: pretrained.pt, or with --jit 1 TorchScript, cpu_jit.pt, for chunks of --decode-chunk-len feature frames."""

from asr_core.bin.export import main

DEFAULTS = {
    "encoder": "zipformer1",
    "exp_dir": "pruned_transducer_stateless7_streaming/exp",
    "epoch": 30,
    "avg": 9,
    "tokens": "data/lang_bpe_500/tokens.txt",
    "decode_chunk_len": 32,
}

if __name__ == "__main__":
    main(defaults=DEFAULTS, script_name="cpu_jit.pt")
