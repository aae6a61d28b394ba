"""Checkpoints in the form of icefall's zipformer recipe, holding weights of its small reference
model, decode with our program.
"""

import argparse
import ast
import pathlib

import numpy as np
import pytest
import soundfile
import torch

from asr_core.bin import decode, generate_averaged_model, transcribe
from asr_core.data.audio import load_audio
from asr_core.data.corpus import Corpus
from asr_core.data.features import extract_features
from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.models.checkpoint import load_averaged_model, load_checkpoint_file, model_from_checkpoint
from asr_core.utils.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
PIECES = ["<blk>", "<sos/eos>", "<unk>", *(f"\u2581W{i}" for i in range(14))]
COMMON = ["--num-workers", "0", "--num-threads", "1", "--device", "cpu", "--on-the-fly-feats", "1"]
LINKED = ["--epoch", "99", "--avg", "1", "--use-averaged-model", "0"]
CHUNKS = ["--chunk-size", "16", "--left-context-frames", "64"]


class Noise(Corpus):
    name = "noise"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the manifest of a test set, and its tokens."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(5)
    cuts = []
    for i in range(4):
        path = folder / f"{i}.wav"
        envelope = np.repeat(rng.uniform(0.001, 0.3, 10 + 4 * i), 1600)
        soundfile.write(path, rng.standard_normal(len(envelope)) * envelope, 16000)
        recording = Recording.from_file(path)
        supervision = SupervisionSegment(f"s{i}", recording.id, 0.0, recording.duration, text="W5 W2")
        cuts.append(
            MonoCut(f"cut-{i}", 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)
        )
    CutSet.from_cuts(cuts).to_file(folder / "noise_cuts_test.jsonl.gz")
    (folder / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES)))
    return folder


def weights(golden, tag):
    prefix = f"{tag}.state_dict/"
    return {
        name[len(prefix) :]: golden.tensor(name) for name in golden.arrays.files if name.startswith(prefix)
    }


def configuration(golden, causal):
    """The model's options under their names, as a training's command line would have given them."""
    lists = {k: ",".join(map(str, v)) for k, v in golden.meta["config"].items() if isinstance(v, list)}
    numbers = {k: golden.meta[k] for k in ("decoder_dim", "joiner_dim", "context_size")}
    numbers["pos_dim"] = golden.meta["config"]["pos_dim"]
    chunks = {"chunk_size": "16,32,64,-1", "left_context_frames": "64,128,256,-1"}
    return {**lists, **numbers, **chunks, "causal": causal, "use_transducer": True, "use_ctc": True}


def as_flags(options):
    return [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def training_checkpoint(golden, tag, batch_idx_train=4000, **changes):
    """A checkpoint as icefall's trainer writes it: states, and all parameters at the top level."""
    state = weights(golden, tag)
    options = configuration(golden, causal=tag.startswith("causal"))
    options.update(
        use_attention_decoder=False,
        use_cr_ctc=False,
        attention_decoder_dim=512,
        attention_decoder_num_layers=6,
    )
    record = dict(
        exp_dir=pathlib.PosixPath("zipformer/exp"), manifest_dir=pathlib.PosixPath("data/fbank"), bpe_model="data/lang_bpe_500/bpe.model",
        world_size=4, master_port=12354, tensorboard=True, num_epochs=40, start_epoch=1, max_duration=1000, full_libri=True,
        base_lr=0.045, average_period=200, batch_idx_train=batch_idx_train, cur_epoch=2, feature_dim=80, subsampling_factor=4,
        best_train_loss=float("inf"), blank_id=0, sos_id=1, eos_id=1, vocab_size=17, warm_step=2000, train_loss=0.05,
        env_info={"k2-version": "1.24.4", "torch-version": "2.0.1", "hostname": "h", "IP address": "127.0.0.1"},
        dtype=torch.float16, use_autocast=True,
    )  # fmt: skip
    optimizer = {
        "state": {0: {"step": 3, "delta": torch.zeros(2, 3)}},
        "param_groups": [{"lr": 0.04, "betas": (0.9, 0.98), "params": [0]}],
    }
    states = dict(
        model=state,
        model_avg=state,
        optimizer=optimizer,
        scheduler={"epoch": 1, "batch": 4000},
        grad_scaler={"scale": 8.0},
    )
    return {**states, "sampler": None, **options, **record, **changes}


def expected(golden, data, causal=False):
    """Hypotheses of the reference model, one utterance at a time."""
    model = golden.causal() if causal else golden.noncausal()
    words = {}
    for i in range(4):
        features = extract_features(load_audio(data / f"{i}.wav", 16000), 16000, 80)
        if causal:  # chunked models get 0.3 s of silence behind each utterance
            features = torch.cat([features, torch.full((30, 80), float(np.log(1e-10)))])
        with torch.inference_mode():
            out, lens = model.forward_encoder(features[None], torch.tensor([len(features)]))
            words[f"cut-{i}"] = [
                PIECES[t].strip("\u2581") for t in greedy_search(model, out, lens)[0].tokens if t > 1
            ]
    return words


def decoded(data, exp_dir, *options):
    decode.main(
        Noise,
        argv=[
            "--exp-dir",
            str(exp_dir),
            "--manifest-dir",
            str(data),
            "--bpe-model",
            str(data / "tokens.txt"),
            *COMMON,
            *options,
        ],
    )
    (path,) = (exp_dir / "greedy_search").glob("recogs-*.txt")
    lines = [line.split(":\thyp=") for line in path.read_text().splitlines() if "\thyp=" in line]
    return {cut: ast.literal_eval(words) for cut, words in lines}


def refused(data, exp_dir, capsys, *options):
    with pytest.raises(SystemExit) as stop:
        decoded(data, exp_dir, *options)
    assert stop.value.code == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_a_training_checkpoint_needs_no_options(golden, data, tmp_path):
    torch.save(training_checkpoint(golden, "noncausal"), tmp_path / "epoch-2.pt")
    truth = expected(golden, data)
    assert sum(map(len, truth.values())) > 8
    assert decoded(data, tmp_path, "--epoch", "2", "--avg", "1", "--use-averaged-model", "0") == truth


def test_averages_of_training_checkpoints(golden, data, tmp_path):
    """The running averages are chosen such that the mean between the two is the reference's
    weights.
    """
    final = weights(golden, "noncausal")
    early = {name: value + 0.5 for name, value in final.items()}
    both = {name: (value + early[name]) / 2 for name, value in final.items()}
    torch.save(
        training_checkpoint(golden, "noncausal", 2000, model=early, model_avg=early), tmp_path / "epoch-1.pt"
    )
    torch.save(
        training_checkpoint(golden, "noncausal", 4000, model=early, model_avg=both), tmp_path / "epoch-2.pt"
    )
    assert decoded(data, tmp_path, "--epoch", "2", "--avg", "1") == expected(golden, data)
    loaded, _ = load_averaged_model(tmp_path, epoch=2, iter=0, avg=1, use_averaged_model=True)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, final[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_weights_alone_are_described_once(golden, data, tmp_path, causal):
    tag = "causal_chunk16_left64" if causal else "noncausal"
    torch.save({"model": weights(golden, tag)}, tmp_path / "pretrained.pt")
    (tmp_path / "epoch-99.pt").symlink_to("pretrained.pt")
    flags = as_flags({**configuration(golden, causal), "chunk_size": 16, "left_context_frames": 64})
    assert decoded(data, tmp_path, *LINKED, *flags) == expected(golden, data, causal)


def test_weights_that_do_not_match_are_refused(golden, data, tmp_path, capsys):
    torch.save({"model": weights(golden, "noncausal")}, tmp_path / "epoch-99.pt")
    right = configuration(golden, causal=False)
    assert "encoder_embed.out.weight has shape (32, 2432) in the checkpoint but (192, 2432)" in refused(
        data, tmp_path, capsys, *LINKED
    )
    cases = {
        "lacks encoder.encoders.0.layers.0.conv_module1.depthwise_conv.chunkwise_conv_scale": {
            "causal": True
        },
        "encoder.encoders.0.layers.0.self_attn_weights.in_proj.weight has shape": {"num_heads": "2,4,4"},
        "lacks encoder.encoders.0.layers.1.bypass_scale": {"num_encoder_layers": "2,2,1"},
        "the checkpoint has ctc_output.1.weight": {"use_ctc": False},
        "joiner.encoder_proj.weight has shape (28, 48) in the checkpoint but (32, 48)": {"joiner_dim": 32},
    }
    for message, change in cases.items():
        assert message in refused(data, tmp_path, capsys, *LINKED, *as_flags({**right, **change}))


def test_options_that_contradict_a_training_checkpoint_are_refused(golden, data, tmp_path, capsys):
    torch.save(training_checkpoint(golden, "noncausal"), tmp_path / "epoch-99.pt")
    assert "--num-encoder-layers 2,2,4,5,4,2 contradicts" in refused(
        data, tmp_path, capsys, *LINKED, "--model-size", "large"
    )
    assert "--causal True contradicts" in refused(data, tmp_path, capsys, *LINKED, "--causal", "1")


def test_averaged_once_it_describes_itself(golden, data, tmp_path, capsys):
    """generate_averaged_model.py turns foreign weights and their description into a file that needs
    no options.
    """
    torch.save({"model": weights(golden, "noncausal")}, tmp_path / "epoch-99.pt")
    where = ["--exp-dir", str(tmp_path), "--tokens", str(data / "tokens.txt")]
    generate_averaged_model.main(argv=[*where, *LINKED, *as_flags(configuration(golden, causal=False))])
    content = load_checkpoint_file(tmp_path / "epoch-99-avg-1.pt")
    assert content["encoder_dim"] == "32,48,40" and content["vocab_size"] == 17
    capsys.readouterr()
    transcribe.main(
        argv=[
            "--checkpoint",
            str(tmp_path / "epoch-99-avg-1.pt"),
            "--tokens",
            str(data / "tokens.txt"),
            str(data / "1.wav"),
        ]
    )
    assert capsys.readouterr().out.strip() == f"{data / '1.wav'}: {' '.join(expected(golden, data)['cut-1'])}"
    with pytest.raises(SystemExit):
        transcribe.main(
            argv=[
                "--checkpoint",
                str(tmp_path / "epoch-99-avg-1.pt"),
                "--tokens",
                str(data / "tokens.txt"),
                "--sample-rate",
                "8000",
                str(data / "1.wav"),
            ]
        )
    assert "was trained with 16000" in capsys.readouterr().err


def test_averages_by_batch_number(golden, tmp_path):
    final = weights(golden, "noncausal")
    early = {name: value + 0.5 for name, value in final.items()}
    both = {name: (value + early[name]) / 2 for name, value in final.items()}
    for batch, model, average in ((2000, early, early), (4000, final, both), (6000, early, early)):
        torch.save(
            training_checkpoint(golden, "noncausal", batch, model=model, model_avg=average),
            tmp_path / f"checkpoint-{batch}.pt",
        )
    for use, avg, truth in ((1, 1, final), (0, 2, both), (0, 1, final)):
        argv = [
            "--exp-dir",
            str(tmp_path),
            "--iter",
            "5000",
            "--avg",
            str(avg),
            "--use-averaged-model",
            str(use),
        ]
        generate_averaged_model.main(argv=argv)
        for name, value in load_checkpoint_file(tmp_path / f"iter-5000-avg-{avg}.pt")["model"].items():
            torch.testing.assert_close(value, truth[name], atol=1e-5, rtol=1e-5)


def test_foreign_objects_in_a_checkpoint(golden, tmp_path):
    """Paths and namespaces of another Python are read; what could run code is not."""
    torch.save(
        training_checkpoint(golden, "noncausal", args=argparse.Namespace(jit=False)), tmp_path / "epoch-1.pt"
    )
    content = load_checkpoint_file(tmp_path / "epoch-1.pt")
    assert content["exp_dir"] == pathlib.Path("zipformer/exp") and content["dtype"] == torch.float16


RELEASED = {
    "small": {"model_size": "small"},
    "medium": {"model_size": "medium"},
    "large": {"model_size": "large"},
    "medium_causal": {"model_size": "streaming"},
    "medium_ctc_aed": {"use_ctc": True, "use_attention_decoder": True},
}


@pytest.mark.parametrize("table", RELEASED)
def test_presets_describe_the_released_models(table):
    """Names and shapes of the published checkpoints; their numbers would not fit into a quick test."""
    rows = (
        line.split("\t") for line in (GOLDEN / f"state_dicts/state_dict_{table}.tsv").read_text().splitlines()
    )
    shapes = {
        name: [] if shape in ("scalar", "()") else [int(n) for n in shape.split("x")]
        for name, shape, _ in rows
    }
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        for other, options in RELEASED.items():
            if other == table:
                assert set(model_from_checkpoint({"model": state}, options).state_dict()) == set(state)
            else:
                with pytest.raises(UserError, match=r"the checkpoint (lacks|has) \w+\.|\w+ has shape \("):
                    model_from_checkpoint({"model": state}, options)
