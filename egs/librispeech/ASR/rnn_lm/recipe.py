"""An LSTM language model over tokens, on the data of prepare.sh, stage 8."""

LM_TYPE = "rnn"
