#!/usr/bin/env python3
"""Export encoder, decoder and joiner as traced files, for chunks of --decode-chunk-len feature frames."""

from asr_core.bin.jit_trace_export import main

DEFAULTS = {
    "encoder": "zipformer1",
    "exp_dir": "pruned_transducer_stateless7_streaming/exp",
    "epoch": 28,
    "avg": 15,
    "tokens": "data/lang_bpe_500/tokens.txt",
    "decode_chunk_len": 32,
}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
