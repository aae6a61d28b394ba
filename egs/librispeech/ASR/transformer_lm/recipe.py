"""A transformer language model over tokens, on the data of prepare.sh, stage 8."""

LM_TYPE = "transformer"
