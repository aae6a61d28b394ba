"""The recipes' configurations: sizes; small models of each kind train, decode and export."""

import re
from types import SimpleNamespace

import pytest
import torch
from recipe_programs import EGS, options_given, parser_of, run_here, training_of
from recognition import recognize

from asr_core.bin import train
from asr_core.data.filter import DropReport
from asr_core.data.module import Survey
from asr_core.decoding.encoding import collate
from asr_core.decoding.model_loading import load_checkpoint_model
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import streaming_search
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.export.loading import load_for_inference
from asr_core.models.build import build_model
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.models.options import options_of
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.lm_recipe import LmRecipe
from asr_core.training.optimizer_options import OptimizerOptions
from asr_core.training.schedule import build_scheduler
from asr_core.utils.options import from_params

L = "librispeech/ASR"
S7 = f"{L}/pruned_transducer_stateless7_streaming"
PROGRAMS = sorted(str(path.parent.relative_to(EGS)) for path in EGS.glob("*/ASR/**/train.py"))
TOKENS = {"custom/ASR": 500}  # where the name of the default tokenizer lacks the size
# Parameters of every train.py: with its defaults, with each --model and --model-size, and with the
# options that the pages recommend.
SIZES = {
    "custom/ASR": 10_260_575,
    "digits/ASR --model zipformer": 3_618_073,
    "digits/ASR --model conformer": 2_653_064,
    "digits/ASR --model contextnet": 1_435_468,
    "digits/ASR --model lstm": 2_446_988,
    "digits/ASR --model zipformer1": 3_800_042,
    "yesno/ASR": 852_592,
    f"{L}/conformer": 78_718_412,
    f"{L}/conformer --model-size test": 1_041_962,
    f"{L}/conformer --model-size s": 13_130_476,
    f"{L}/conformer --model-size m": 31_707_356,
    f"{L}/conformer --model-size l": 116_667_420,
    f"{L}/conformer --model-size s-rnnt": 15_196_524,
    f"{L}/conformer --model-size m-rnnt": 33_787_740,
    f"{L}/conformer --model-size l-rnnt": 118_780_572,
    f"{L}/conformer --model-size test-rnnt": 17_298,
    f"{L}/conformer --model-size icefall": 78_718_412,
    f"{L}/conformer --model-size hybrid-small": 26_864_844,
    f"{L}/conformer --model-size hybrid-large": 77_027_984,
    f"{L}/conformer_rnnt --model conformer-l-rnnt": 118_606_528,
    f"{L}/conformer_rnnt --model conformer-m-rnnt": 33_741_696,
    f"{L}/conformer_rnnt --model conformer-s-rnnt": 15_206_480,
    f"{L}/conformer_rnnt --model conformer-test-rnnt": 19_206,
    f"{L}/conformer_rnnt --model conformer-l-ctc": 115_637_824,
    f"{L}/conformer_rnnt --model conformer-m-ctc": 30_674_688,
    f"{L}/conformer_rnnt --model conformer-s-ctc": 12_096_464,
    f"{L}/conformer_rnnt --model conformer-test-ctc": 6_270,
    f"{L}/contextnet": 10_771_120,
    f"{L}/contextnet --alpha 1": 30_922_216,
    f"{L}/contextnet --alpha 2": 110_699_608,
    S7: 70_369_391,
    f"{L}/rnn_lm": 101_736_948,
    f"{L}/transformer_lm": 66_553_844,
    f"{L}/zipformer": 65_549_011,
    f"{L}/zipformer --model-size tiny": 3_726_863,
    f"{L}/zipformer --model-size small": 23_285_615,
    f"{L}/zipformer --model-size medium": 65_549_011,
    f"{L}/zipformer --model-size large": 148_439_574,
    f"{L}/zipformer --model-size streaming": 66_110_931,
    f"{L}/zipformer_ctc": 64_250_603,
    f"{L}/zipformer_ctc --use-attention-decoder 1": 89_987_295,
    f"{L}/zipformer_ctc --model-size tiny": 3_499_815,
    f"{L}/zipformer_ctc --model-size small": 22_118_279,
    f"{L}/zipformer_ctc --model-size medium": 64_250_603,
    f"{L}/zipformer_ctc --model-size large": 147_010_094,
    f"{L}/zipformer_ctc --model-size streaming": 64_812_523,
}
MANY = (
    f"{L}/zipformer --",
    f"{L}/zipformer_ctc --",
)  # the slowest to build; test/models/test_sizes.py has some of them, too


def names_of(recipe):
    """Return the names that select each configuration of a recipe's training."""
    actions = parser_of(EGS / recipe / "train.py")._option_string_actions
    if "--model" in actions:
        return [f"{recipe} --model {name}" for name in actions["--model"].choices]
    sizes = actions["--model-size"].choices if "--model-size" in actions and recipe.startswith(L) else []
    return [recipe, *(f"{recipe} --model-size {size}" for size in sizes if size)]


def build(name):
    """The model on the meta device."""
    recipe, *argv = name.split()
    args, params = training_of(EGS / recipe / "train.py", *argv)
    with torch.device("meta"):
        if not args:
            return LmRecipe(params).build_model()
        tokens = TOKENS.get(recipe) or int(re.search(r"_(\d+)/bpe.model", params["bpe_model"])[1])
        return build_model(options_of(params), tokens)


def test_every_configuration_is_here():
    names = {name for recipe in PROGRAMS for name in names_of(recipe)}
    assert names <= set(SIZES), sorted(names - set(SIZES))
    assert {name.split()[0] for name in SIZES} == set(PROGRAMS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(MANY)) for name in SIZES]
)
def test_sizes(name):
    assert sum(p.numel() for p in build(name).parameters()) == SIZES[name]


def test_parts_of_the_published_models():
    def parts(name):
        return {
            part: sum(p.numel() for p in module.parameters()) for part, module in build(name).named_children()
        }

    conformer = parts(f"{L}/conformer_rnnt --model conformer-l-rnnt")
    assert conformer["encoder_embed"] == 2_364_928 + 5_243_392 and conformer["encoder"] == 17 * 6_323_776
    assert conformer["decoder"] + conformer["joiner"] == 3_494_016
    contextnet = parts(f"{L}/contextnet")
    assert (contextnet["encoder"], contextnet["decoder"], contextnet["joiner"]) == (
        6_829_256,
        3_002_368,
        939_496,
    )


# -- small models of the same kinds ---------------------------------------------------------------

PIECES = ["<blk>", "<sos/eos>", "<unk>", *(f"▁W{i}" for i in range(9))]
SMALL = {
    "zipformer": {
        "num_encoder_layers": "1",
        "encoder_dim": "16",
        "encoder_unmasked_dim": "12",
        "feedforward_dim": "16",
        "num_heads": "2",
        "query_head_dim": "4",
        "value_head_dim": "4",
        "pos_dim": 8,
        "cnn_module_kernel": "7",
    },
    "conformer": {
        "num_encoder_layers": 2,
        "encoder_dim": 16,
        "nhead": 2,
        "feedforward_dim": 24,
        "front_end_channels": 4,
    },
    "contextnet": {
        "block_channels": "16",
        "alpha": 0.5,
        "block_layers": "1,2,2,1",
        "block_strides": "1,2,4,1",
    },
    "lstm": {"num_encoder_layers": 2, "encoder_dim": 16, "rnn_hidden_size": 20, "dim_feedforward": 24},
    "zipformer1": {
        "num_encoder_layers": "1",
        "feedforward_dims": "16",
        "nhead": "2",
        "encoder_dims": "16",
        "attention_dims": "8",
        "encoder_unmasked_dims": "12",
        "cnn_module_kernels": "7",
    },
}
HEADS = {
    "decoder_dim": 16,
    "joiner_dim": 16,
    "attention_decoder_dim": 16,
    "attention_decoder_num_layers": 1,
    "attention_decoder_attention_dim": 16,
    "attention_decoder_num_heads": 2,
    "attention_decoder_feedforward_dim": 16,
}
RUN = {
    "device": "cpu",
    "num_threads": 1,
    "num_workers": 0,
    "tensorboard": False,
    "use_fp16": False,
    "max_steps": 3,
    "log_interval": 1,
    "average_period": 1,
    "valid_wer_interval": 0,
}
TRAINED = [
    pytest.param(f"{L}/conformer", marks=pytest.mark.slow),
    f"{L}/conformer_rnnt --model conformer-l-rnnt",
    pytest.param(f"{L}/conformer_rnnt --model conformer-l-ctc", marks=pytest.mark.slow),
    f"{L}/contextnet",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            f"{L}/zipformer",
            f"{L}/zipformer_ctc",
            f"{L}/zipformer_ctc --use-cr-ctc 1 --enable-spec-aug 0",
            f"{L}/zipformer_ctc --use-attention-decoder 1 --ctc-loss-scale 0.1 "
            "--attention-decoder-loss-scale 0.9",
            S7,
            "yesno/ASR",
            "custom/ASR",
            "digits/ASR --model zipformer",
            "digits/ASR --model conformer",
            "digits/ASR --model contextnet",
            "digits/ASR --model lstm",
            "digits/ASR --model zipformer1",
        )
    ),
]


def utterances(seed):
    torch.manual_seed(seed)
    return [3 * torch.randn(n, 80) - 8 for n in (150, 97, 61)]


class Noise:
    """Batches of noise."""

    dropped = DropReport()

    def train_dataloader(self, cuts, epoch, skip_batches=0, alike=0):
        for index in range(skip_batches, 5):
            x, lens = collate(utterances(index))
            cuts = [SimpleNamespace(id=f"cut-{row}") for row in range(3)]
            supervisions = {
                "text": ["3 4 5", "6", "7 7"],
                "start_frame": torch.zeros(3).int(),
                "num_frames": lens.int(),
                "cut": cuts,
            }
            yield {"inputs": x, "supervisions": supervisions, "batch_idx": index}

    def valid_dataloader(self, cuts):
        return iter(())


def small(recipe_class):
    """The recipe on noise."""

    class Small(recipe_class or AsrRecipe):
        tokenizer = SimpleNamespace(
            encode=lambda texts: [list(map(int, text.split())) for text in texts],
            decode=lambda tokens: " ".join(map(str, tokens)),
            pieces=PIECES,
            vocab_size=len(PIECES),
            blank_id=0,
            unk_id=2,
            path="tokens.txt",
        )

        def build_datamodule(self):
            return Noise()

        def train_cuts(self):
            return []

        def valid_sets(self):
            return {"": []}

        def report_data(self, data, train_cuts, valid_sets):
            return Survey(utterances=15, seconds=15.0, tokens=45)

    return Small


@pytest.mark.parametrize("name", TRAINED)
def test_small_models_train_decode_and_export(name, tmp_path):
    recipe, *argv = name.split()
    (corpus, recipe_class), params = training_of(EGS / recipe / "train.py", *argv)
    sizes = {
        **HEADS,
        **SMALL[params["encoder"]],
        **({"predictor_embedding_dim": 8} if params["predictor_embedding_dim"] else {}),
    }
    params.update({key: value for key, value in sizes.items() if key in params}, **RUN, exp_dir=str(tmp_path))
    before = torch.get_num_threads()
    assert train.launch(train._train, (corpus, small(recipe_class)), params) == 0
    torch.set_num_threads(before)
    program, flags = (
        EGS / recipe / "export.py",
        ["--exp-dir", tmp_path, "--iter", 3, "--avg", 1, "--use-averaged-model", 0],
    )
    given = options_given(program, *flags)
    model, trained = load_checkpoint_model(from_params(CheckpointOptions, given), {})
    assert trained["batch_idx_train"] == 3 and options_of(trained) == options_of(params)
    run_here(
        program,
        *flags,
        "--jit",
        1,
        *(["--chunk-size", 16, "--left-context-frames", 64] if trained["causal"] else []),
    )
    (path,) = set(tmp_path.glob("*jit*.pt"))
    check_equal(model, load_for_inference(str(path)))


def check_equal(model, loaded):
    """Encoder output and transcripts of a model and of what was exported are the same."""
    search = SearchOptions(decoding_method="greedy_search" if model.use_transducer else "ctc-greedy-search")
    features = utterances(9)
    x, lens = collate(features)
    assert loaded.streaming == model.encoder.causal and loaded.model.geometry == model.geometry
    if not loaded.streaming:
        expected, got = (recognize(m, x, lens, search, False) for m in (model, loaded.model))
        outputs = zip(model.forward_encoder(x, lens), loaded.model.forward_encoder(x, lens))
    else:
        model.set_chunk(16, 64)
        expected = recognize(model, x, lens, search, True, 16)
        streams = StreamBatch(loaded.model, streaming_search(loaded.model, search), 16)
        found = dict(decode_streams(streams, enumerate(features), 3))
        got = [found[i] for i in range(3)]
        window = x[:, : model.window_frames], torch.tensor([model.window_frames] * 3)
        outputs = zip(
            model.streaming_forward(*window, model.get_init_states(3)),
            loaded.model.streaming_forward(*window, loaded.model.get_init_states(3)),
        )
    for one, other in list(outputs)[:2]:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert [h.tokens for h in got] == [h.tokens for h in expected]


def test_the_old_recipe_trains_as_it_did():
    """Half of the rate at the first batch, and schedules that count batches of any size."""
    _, params = training_of(EGS / f"{S7}/train.py")
    opts = from_params(OptimizerOptions, params)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], opts.peak_lr())
    scheduler = build_scheduler(optimizer, opts)
    rates = []
    for batch in (0, 250, 500):
        scheduler.step_batch(batch)
        decay = ((batch**2 + 5000**2) / 5000**2) ** -0.25
        rates.append(scheduler.get_last_lr()[0] / 0.05 / decay)
    assert rates == pytest.approx([0.5, 0.75, 1.0])
    recipe = AsrRecipe(params, None)
    assert recipe.reference_batches == 0.0
