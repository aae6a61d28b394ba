"""Back ends of the RNN-T losses; the public functions are in :mod:`asr_core.ops.rnnt_loss`."""
