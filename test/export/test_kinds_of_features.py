"""A model trained on other features than the usual: its files say so, and programs make those
features or refuse others.
"""

import pytest
import torch
from recognition import recognize
from tiny import write_audio, write_run

from asr_core.bin import export, transcribe
from asr_core.data.audio import load_audio
from asr_core.data.features import describe_features, extract_features
from asr_core.data.options import DataOptions
from asr_core.decoding.encoding import collate
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.session import with_trained_features
from asr_core.export.loading import load_for_inference
from asr_core.utils.errors import UserError

FORM = describe_features(16000, 80, "log-mel")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder with a checkpoint and its exports, and the model."""
    exp_dir = tmp_path_factory.mktemp("log-mel")
    model = write_run(exp_dir, True)
    checkpoint = torch.load(exp_dir / "epoch-1.pt", weights_only=False)
    torch.save({**checkpoint, "feature_type": "log-mel", "features": FORM}, exp_dir / "epoch-1.pt")
    common = ["--epoch", "1", "--avg", "1", "--use-averaged-model", "0", "--exp-dir", str(exp_dir)]
    export.main(argv=common)
    for chunk, left in (("-1", "-1"), ("16", "32")):
        export.main(argv=[*common, "--jit", "1", "--chunk-size", chunk, "--left-context-frames", left])
    return exp_dir, model


FILES = ("epoch-1.pt", "pretrained.pt", "jit_script.pt", "jit_script_chunk_16_left_32.pt")


@pytest.mark.parametrize("name", FILES)
def test_every_file_tells_its_features(run, name):
    loaded = load_for_inference(str(run[0] / name))
    assert (loaded.feature_type, loaded.sample_rate, loaded.feature_dim) == ("log-mel", 16000, 80)
    if "jit" in name:
        assert loaded.model.info["features"] == FORM
    with pytest.raises(UserError, match="--feature-type fbank: .* was trained with log-mel"):
        load_for_inference(str(run[0] / name), given={"feature_type": "fbank"})


@pytest.mark.parametrize("name", FILES)
def test_transcribe_makes_the_features_of_the_model(run, name, tmp_path, capsys):
    exp_dir, model = run
    paths = write_audio(tmp_path, n=2)
    loaded = load_for_inference(str(exp_dir / name))
    features = [extract_features(load_audio(path), 16000, 80, "log-mel") for path in paths]
    model.set_chunk(*((16, 32) if loaded.streaming else (-1, -1)))
    found = recognize(model, *collate(features), SearchOptions(), True, loaded.chunk_size)
    transcribe.main(argv=["--model", str(exp_dir / name), "--num-threads", "1", *map(str, paths)])
    want = "".join(f"{path}: {loaded.tokenizer.decode(h.tokens)}\n" for path, h in zip(paths, found))
    assert capsys.readouterr().out == want
    others = recognize(
        model,
        *collate([extract_features(load_audio(p), 16000) for p in paths]),
        SearchOptions(),
        True,
        loaded.chunk_size,
    )
    assert [h.tokens for h in others] != [h.tokens for h in found]


def test_decoding_takes_the_features_of_the_checkpoint():
    trained = {"sample_rate": 16000, "feature_dim": 80, "feature_type": "log-mel"}
    assert with_trained_features(DataOptions(), {}, trained).feature_type == "log-mel"
    assert with_trained_features(DataOptions(), {}, {"feature_dim": 80}).feature_type == "fbank"
    with pytest.raises(UserError, match="--feature-type fbank: the model was trained with log-mel"):
        with_trained_features(DataOptions(), {"feature_type": "fbank"}, trained)
