"""The Conformers that ``train.py --model`` chooses among: four sizes, with an LSTM transducer or with CTC."""

_CTC = {"use_transducer": False, "use_ctc": True}
MODELS = {
    f"conformer-{size}-{head}": {
        "encoder": "conformer",
        "model_size": f"{size}-rnnt" if head == "rnnt" else size,
        **extra,
    }
    for head, extra in (("rnnt", {"loss": "full"}), ("ctc", _CTC))
    for size in ("l", "m", "s", "test")
}
