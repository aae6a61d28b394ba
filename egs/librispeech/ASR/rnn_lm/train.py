#!/usr/bin/env python3
"""Train an LSTM language model over tokens on the data of prepare.sh, stage 8."""

from asr_core.bin.train_lm import main

if __name__ == "__main__":
    main("rnn")
