"""The training program and recipe on a tiny Zipformer."""

from types import SimpleNamespace

import fake_run
import pytest

from asr_core.bin.train import main
from asr_core.data.corpus import Corpus
from asr_core.models import ModelOptions, build_model
from asr_core.utils.options import defaults_of, from_params

TINY = {
    "num_encoder_layers": "1,1",
    "downsampling_factor": "1,2",
    "encoder_dim": "32,48",
    "encoder_unmasked_dim": "24,32",
    "feedforward_dim": "64",
    "num_heads": "2",
    "query_head_dim": "8",
    "cnn_module_kernel": "15,7",
    "decoder_dim": 32,
    "joiner_dim": 32,
    "causal": True,
}


class Tiny(Corpus):
    name = "tiny"


class ZipformerRecipe(fake_run.FakeRecipe):
    """The real model and loss on made-up features."""

    tokenizer = SimpleNamespace(encode=lambda texts: [[int(t), 1, 2] for t in texts], pieces=["<blk>"])

    def build_model(self):
        return build_model(
            from_params(ModelOptions, {**defaults_of(ModelOptions), **TINY, "use_ctc": True}),
            vocab_size=fake_run.VOCAB,
        )

    def build_datamodule(self):
        data = super().build_datamodule()
        small = data._batch

        def batch(seed, index):
            out = small(seed, index)
            out["inputs"] = out["inputs"].repeat(1, 4, 10)
            out["supervisions"]["num_frames"] *= 4
            return out

        data._batch = batch
        return data


def arguments(prepared, exp_dir):
    """Return the options that name data, tokenizer, folder and device."""
    return [
        *("--manifest-dir", str(prepared)),
        *("--bpe-model", str(prepared / "bpe.model")),
        *("--exp-dir", str(exp_dir)),
        *("--device", "cpu"),
    ]


def train(prepared, exp_dir, *argv, recipe=None):
    """Run the program on the data of the fixture ``prepared``; return its exit status."""
    defaults = {
        **TINY,
        "num_epochs": 2,
        "max_duration": 5.0,
        "on_the_fly_feats": True,
        "num_workers": 0,
        "bucketing_sampler": False,
    }
    defaults.update(log_interval=1, average_period=1, num_threads=1, tensorboard=False)
    with pytest.raises(SystemExit) as ended:
        main(Tiny, recipe, defaults=defaults, argv=[*arguments(prepared, exp_dir), *argv])
    return ended.value.code
