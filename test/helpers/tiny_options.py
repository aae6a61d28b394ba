"""Options of tiny models. No import: checks and benchmarks read them where packages are missing."""

PIECES = ["<blk>", "<sos/eos>", "<unk>", *(f"\u2581W{i}" for i in range(9))]

# A Zipformer that tests of decoding and export give lively random weights.
OPTIONS = dict(
    num_encoder_layers="1,2",
    downsampling_factor="1,2",
    feedforward_dim="48",
    num_heads="2",
    encoder_dim="32,48",
    query_head_dim="8",
    value_head_dim="4",
    pos_head_dim="4",
    pos_dim=16,
    encoder_unmasked_dim="24",
    cnn_module_kernel="15,7",
    decoder_dim=32,
    joiner_dim=32,
)

HEADS = {"decoder_dim": 16, "joiner_dim": 16, "chunk_size": "16", "left_context_frames": "32"}
# Of each encoder a model of a few thousand parameters that can stream.
TINY = {
    "zipformer": {
        "num_encoder_layers": "1,1",
        "downsampling_factor": "1,2",
        "encoder_dim": "16,24",
        "encoder_unmasked_dim": "12",
        "feedforward_dim": "16",
        "num_heads": "2",
        "query_head_dim": "4",
        "value_head_dim": "4",
        "pos_dim": 8,
        "cnn_module_kernel": "7",
        "causal": True,
    },
    "conformer": {
        "num_encoder_layers": 2,
        "encoder_dim": 16,
        "nhead": 2,
        "feedforward_dim": 24,
        "cnn_module_kernel": 6,
        "front_end_channels": 4,
        "norm_eps": 1e-5,
        "causal": True,
    },
    "contextnet": {
        "block_channels": "32,32,40",
        "block_layers": "1,2,1",
        "block_strides": "2",
        "alpha": 0.5,
        "causal": True,
    },
    "lstm": {"num_encoder_layers": 2, "encoder_dim": 16, "rnn_hidden_size": 20, "dim_feedforward": 24},
    "zipformer1": {
        "num_encoder_layers": "1,2,1",
        "feedforward_dims": "24",
        "nhead": "2",
        "encoder_dims": "16,16,20",
        "attention_dims": "16",
        "encoder_unmasked_dims": "12",
        "zipformer_downsampling_factors": "1,4,2",
        "cnn_module_kernels": "5",
    },
}
