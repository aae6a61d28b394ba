"""Kinds of encoder: their options on the command line and in checkpoints, and what every registered
one can do.
"""

import pytest
import torch
from recognition import recognize
from tiny import PIECES
from tiny_encoders import TINY, checkpoint, model_of, options, utterances

from asr_core.bin import train
from asr_core.data.corpus import Corpus
from asr_core.decoding.encoding import collate
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.encoders.registry import ENCODERS, encoder_spec, subsampling_factor
from asr_core.export.loading import load_for_inference
from asr_core.export.pretrained import model_info, save_pretrained
from asr_core.export.torchscript import save_torchscript, script_model
from asr_core.models.checkpoint import model_from_checkpoint, model_options
from asr_core.models.options import ModelOptions, options_class, options_of
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, record_of


class Nothing(Corpus):
    name = "nothing"
    defaults = {"max_duration": 33.0}


def parsed(*argv, defaults=None, encoders=("zipformer",), models=None):
    return train.parse(Nothing, defaults=defaults, argv=list(argv), encoders=encoders, models=models)


@pytest.mark.parametrize("name", TINY)
def test_a_checkpoint_describes_its_model(name):
    content = checkpoint(name)
    model = model_from_checkpoint(content)
    x, lens = collate(utterances())
    with torch.no_grad():
        for a, b in zip(model.eval().forward_encoder(x, lens), model_of(name).forward_encoder(x, lens)):
            assert torch.equal(a, b)
    assert model.geometry.subsampling_factor == subsampling_factor(options(name))
    with pytest.raises(UserError, match="--causal False contradicts the checkpoint"):
        model_from_checkpoint(content, {"causal": False})
    other = next(n for n in ENCODERS if n != name)
    with pytest.raises(UserError, match=f"--encoder {other} contradicts the checkpoint"):
        model_from_checkpoint(content, {"encoder": other})


@pytest.mark.parametrize("name", TINY)
def test_three_steps_of_training(name):
    model = model_of(name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, lens = collate(utterances())
    for _ in range(3):
        losses = model(x, lens, [[3, 4, 5], [6], [7, 7]])
        loss = losses.simple_loss + losses.pruned_loss
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", TINY)
def test_streams_find_what_simulated_streaming_finds(name):
    model = model_of(name)
    opts = SearchOptions()
    simulated = recognize(model, *collate(utterances()), opts, True, 16)
    streams = StreamBatch(model, streaming_search(model, opts), 16)
    found = dict(decode_streams(streams, enumerate(utterances()), 2))
    assert [h.tokens for h in simulated] == [found[i].tokens for i in range(3)]
    assert sum(len(h.tokens) for h in simulated) > 10


@pytest.mark.parametrize("name", TINY)
def test_exported_files_are_the_same_model(name, tmp_path):
    model = model_of(name)
    info = model_info(model, checkpoint(name))
    save_torchscript(script_model(model, True), tmp_path / "stream.pt", info, PIECES)
    save_pretrained(model, checkpoint(name), tmp_path / "pretrained.pt")
    (tmp_path / "tokens.txt").write_text("".join(f"{p} {i}\n" for i, p in enumerate(PIECES)))
    expected = [h.tokens for h in recognize(model, *collate(utterances()), SearchOptions(), True, 16)]
    scripted = load_for_inference(str(tmp_path / "stream.pt"))
    assert scripted.model.geometry == model.geometry and scripted.streaming
    streams = StreamBatch(scripted.model, streaming_search(scripted.model, SearchOptions()), 16)
    found = dict(decode_streams(streams, enumerate(utterances()), 3))
    assert [found[i].tokens for i in range(3)] == expected
    loaded = load_for_inference(
        str(tmp_path / "pretrained.pt"), given={"chunk_size": 16, "left_context_frames": 32}
    )
    assert [
        h.tokens for h in recognize(loaded.model, *collate(utterances()), SearchOptions(), True, 16)
    ] == expected
    assert loaded.frame_seconds == model.geometry.subsampling_factor / 100


def test_every_encoder_is_tested_here():
    assert set(TINY) == set(ENCODERS)
    for name in ENCODERS:
        assert options_of({"encoder": name}).encoder == name
    with pytest.raises(UserError, match="unknown --encoder 'transformer'; known: zipformer"):
        encoder_spec("transformer")


def test_a_parser_has_the_options_of_the_chosen_encoder():
    both = ("zipformer", "conformer")
    assert "nhead" not in parsed(encoders=both) and parsed(encoders=both).num_heads == "4,4,4,8,4,4"
    chosen = parsed(
        "--encoder", "conformer", "--nhead", "3", encoders=both, defaults={"num_heads": "5", "norm_eps": 0.1}
    )
    assert (
        chosen.nhead == 3
        and chosen.norm_eps == 0.1
        and "num_heads" not in chosen
        and chosen.max_duration == 33.0
    )
    assert options_of(chosen).nhead == 3
    for argv in (["--encoder", "conformer"], ["--encoder=conformer", "--num-heads", "3"]):
        with pytest.raises(SystemExit):
            parsed(*argv, encoders=("zipformer",) if len(argv[0]) == 9 else both)
    with pytest.raises(ValueError, match="options that do not exist: nhead"):
        parsed(defaults={"nhead": 3})


def test_configurations_by_name():
    models = {"big": {"encoder_dim": "192"}, "small": {"encoder": "conformer", "encoder_dim": 32}}
    assert parsed(models=models).encoder_dim == "192" and parsed(models=models).encoder == "zipformer"
    small = parsed("--model", "small", "--nhead", "2", models=models)
    assert (small.encoder, small.encoder_dim, small.nhead, small.configuration) == (
        "conformer",
        32,
        2,
        "small",
    )
    assert parsed("--model", "small", "--encoder-dim", "48", models=models).encoder_dim == 48
    for argv in (["--model", "none"], ["--model", "small", "--encoder", "zipformer"]):
        with pytest.raises(SystemExit):
            parsed(*argv, models=models)


def test_presets_of_another_encoder():
    medium = parsed("--encoder", "conformer", "--model-size", "m", "--nhead", "8", encoders=("conformer",))
    assert (medium.encoder_dim, medium.nhead, medium.model_size) == (256, 8, "")
    assert from_params(options_class("conformer"), {"model_size": "m", "nhead": 2}).nhead == 2


def test_options_of_another_encoder_are_refused():
    with pytest.raises(
        UserError, match="--nhead is an option of encoder conformer, and this is encoder zipformer"
    ):
        model_options(record_of(ModelOptions()), {"nhead": 3})
    with pytest.raises(UserError, match="--nhead 4 contradicts the checkpoint, which was trained with 2"):
        model_options(checkpoint("conformer"), {"nhead": 4})


def test_taking_modules_over_from_another_encoder():
    given = {"encoder": "conformer", **TINY["conformer"]}
    opts = model_options(checkpoint("zipformer"), given, free=True)
    assert (opts.encoder, opts.encoder_dim, opts.decoder_dim) == ("conformer", 16, 16)
