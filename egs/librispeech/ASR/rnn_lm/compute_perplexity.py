#!/usr/bin/env python3
"""Print the perplexity of a trained LSTM language model on text in tokens."""

from asr_core.bin.lm_perplexity import main

if __name__ == "__main__":
    main("rnn")
