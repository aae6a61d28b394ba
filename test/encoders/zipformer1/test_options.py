"""Options of the first Zipformer, from the command line and from icefall's checkpoints."""

import argparse

import pytest
import torch
from small_zipformer1 import SIZES, model_of

from asr_core.cli.decoding_arguments import add_model_options
from asr_core.encoders.chunk_options import chunk_and_left
from asr_core.models.checkpoint import load_averaged_model, load_checkpoint_file, model_from_checkpoint
from asr_core.utils.errors import UserError


@pytest.mark.parametrize(
    "options, message",
    [
        ({"causal": False}, "always causal"),
        ({"nhead": "2,3"}, "--nhead has 2 entries, but there are 5 stacks"),
        ({"nhead": "3"}, "3 heads do not divide an attention width of 16"),
        ({"encoder_dims": "0"}, "--encoder-dims must be at least 1"),
        ({"encoder_dims": "24,24,20,24,24"}, "widths may only grow"),
        ({"encoder_unmasked_dims": "99"}, "at least that of the unmasked"),
        ({"zipformer_downsampling_factors": "1,2,3,4,1"}, "a stack that is not downsampled|does not divide"),
        ({"short_chunk_size": 7}, "is below the downsampling factor 8"),
        ({"decode_chunk_len": 24}, "a chunk of 12 frames cannot be divided by the downsampling factor 8"),
        ({"decode_chunk_len": 31}, "must be an even number"),
        ({"num_left_chunks": 0}, "--num-left-chunks must be at least 1"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(UserError, match=message):
        model_of(**options)


def test_chunk_of_decoding():
    recorded = {"decode_chunk_len": 32, "num_left_chunks": 4, "chunk_size": "", "left_context_frames": ""}
    assert chunk_and_left({}, recorded, default=None) == (16, 64)
    assert chunk_and_left({"decode_chunk_len": 64}, recorded, default=None) == (32, 128)
    assert chunk_and_left({"num_left_chunks": 8}, recorded, default=None) == (16, 128)
    assert chunk_and_left({"chunk_size": "8", "left_context_frames": "24"}, recorded, default=None) == (8, 24)
    with pytest.raises(UserError, match="a chunk of 20 frames"):
        model_of().set_chunk(20, 40)


def test_icefalls_checkpoints(tmp_path):
    model = model_of().float()
    theirs = {
        name.replace("encoder_embed.", "encoder.encoder_embed."): value
        for name, value in model.state_dict().items()
    }
    torch.save({"model": theirs}, tmp_path / "pretrained.pt")
    loaded = model_from_checkpoint(
        load_checkpoint_file(tmp_path / "pretrained.pt"), {**SIZES, "encoder": "zipformer1"}
    )
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(UserError, match="encoder_embed.out.weight has shape"):
        model_from_checkpoint(load_checkpoint_file(tmp_path / "pretrained.pt"))
    params = {
        **SIZES,
        "decode_chunk_len": 64,
        "short_chunk_size": 50,
        "num_left_chunks": 4,
        "average_period": 10,
        "vocab_size": 11,
    }
    for epoch in (1, 2):
        average = {f"module.{name}": value for name, value in theirs.items()}
        torch.save(
            {"model": average, "model_avg": theirs, "batch_idx_train": 100 * epoch, **params},
            tmp_path / f"epoch-{epoch}.pt",
        )
    for averaged in (True, False):
        loaded, recorded = load_averaged_model(
            tmp_path, epoch=2, iter=0, avg=1, use_averaged_model=averaged, overrides={"short_chunk_size": 16}
        )
        torch.testing.assert_close(loaded.state_dict(), model.state_dict())
        assert recorded.encoder == "zipformer1" and loaded.encoder.chunk_size == (32,)


def test_chunk_of_the_command_line_holds_against_the_recipes():
    defaults = {"encoder": "zipformer1", "chunk_size": "16", "left_context_frames": "64"}
    for argv, expected in (
        ([], (16, 64)),
        (["--decode-chunk-len", "64"], (32, 128)),
        (["--chunk-size", "8"], (8, 64)),
    ):
        parser = argparse.ArgumentParser()
        add_model_options(parser, defaults, argv)
        assert chunk_and_left(vars(parser.parse_args(argv)), {}, default=None) == expected
