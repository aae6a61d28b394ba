"""Every kind of file of weights with bits flipped and ends cut off: refused in one line, or read as
before (bits between an archive's entries mean nothing); and hundreds of hostile pickles.
"""

import itertools
import pickle
import pickletools
import random

import pytest
import torch
from tiny import PIECES, write_run

from asr_core.bin import export, generate_averaged_model, jit_trace_export
from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.export.language_model import save_lm
from asr_core.export.torchscript import open_torchscript
from asr_core.lm.archive import LmArchive
from asr_core.lm.neural import RnnLm
from asr_core.lm.options import LmOptions, RnnOptions
from asr_core.models.checkpoint import load_checkpoint_file
from asr_core.training.checkpoint import read_whole
from asr_core.utils.errors import UserError

pytestmark = pytest.mark.slow
FLIPS, CUTS, PICKLES = 200, 20, 400  # of each file; in all


def scripted(path):
    return open_torchscript(path).module.state_dict()


def language_model(path):
    return load_lm(LmOptions(lm_exp_dir=str(path.parent), lm_epoch=1, lm_avg=1), None).state_dict()


def lm_data(path):
    return LmArchive.load(path)._asdict()


LOADERS = {
    "epoch-1.pt": read_whole,
    "epoch-1-avg-1.pt": load_checkpoint_file,
    "pretrained.pt": load_checkpoint_file,
    "jit_script.pt": scripted,
    "jit_script_chunk_16_left_32.pt": scripted,
    "encoder_jit_trace.pt": scripted,
    "decoder_jit_trace.pt": scripted,
    "joiner_jit_trace.pt": scripted,
    "lm_jit.pt": scripted,
    "lm/epoch-1.pt": language_model,
    "lm_data.pt": lm_data,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one file of each kind."""
    path = tmp_path_factory.mktemp("files")
    model = write_run(path, causal=True)
    content = torch.load(path / "epoch-1.pt")
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    torch.save({**content, "optimizer": optimizer.state_dict()}, path / "epoch-1.pt")
    common = ["--epoch", "1", "--avg", "1", "--use-averaged-model", "0", "--exp-dir", str(path)]
    chunks = ["--chunk-size", "16", "--left-context-frames", "32"]
    generate_averaged_model.main(argv=common)
    export.main(argv=common)
    export.main(argv=[*common, "--jit", "1", *chunks])
    export.main(argv=[*common, "--jit", "1", "--chunk-size", "-1", "--left-context-frames", "-1"])
    jit_trace_export.main(argv=[*common, *chunks])
    lm = RnnLm(len(PIECES), RnnOptions(embedding_dim=8, hidden_dim=8, num_layers=1))
    save_lm(lm, path / "lm/epoch-1.pt")
    save_lm(lm, path / "lm_jit.pt", jit=True)
    LmArchive(*(torch.arange(i, 90 + i, dtype=torch.int32) for i in range(5))).save(path / "lm_data.pt")
    return path


def tensors(content):
    """All tensors and plain values of nested containers, by place."""
    if isinstance(content, dict):
        return {(k, *place): x for k, v in content.items() for place, x in tensors(v).items()}
    if isinstance(content, (list, tuple)):
        return {(i, *place): x for i, v in enumerate(content) for place, x in tensors(v).items()}
    return {(): content}


def equal(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and a == b


def same(one, other):
    one, other = tensors(one), tensors(other)
    return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", list(LOADERS))
def test_flipped_bits_and_cuts(folder, tmp_path, name):
    whole, load = (folder / name).read_bytes(), LOADERS[name]
    good = load(folder / name)
    rng = random.Random(name)
    ends = [rng.randrange(len(whole) - 70_000, len(whole)) if len(whole) > 70_000 else 0 for _ in range(60)]
    places = [rng.randrange(len(whole)) for _ in range(FLIPS)] + ends + list(range(0, 400, 7))
    changed = [(f"bit {place}", flipped(whole, place, rng)) for place in places]
    changed += [(f"cut {cut}", whole[:cut]) for cut in (rng.randrange(len(whole)) for _ in range(CUTS))]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    refused = 0
    for what, data in changed:
        path.write_bytes(data)
        try:
            content = load(path)
        except UserError as e:
            assert str(path) in str(e) and "\n" not in str(e), (what, e)
            refused += 1
        else:
            assert same(content, good), what
    assert refused > 0.5 * FLIPS


def flipped(data, place, rng):
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


GLOBALS = [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("builtins", "open"),
    ("subprocess", "Popen"),
    ("torch", "from_file"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.jit", "load"),
    ("torch", "UntypedStorage.from_file"),
    ("torch.storage", "UntypedStorage.from_file"),
    ("torch.serialization", "load"),
    ("numpy", "load"),
    ("numpy", "memmap"),
    ("shutil", "rmtree"),
    ("pathlib", "Path.unlink"),
    ("pathlib", "Path.write_text"),
    ("asr_core.utils.files", "write_text_atomic"),
    ("collections", "namedtuple"),
]


def test_hostile_pickles(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    path = tmp_path / "x.pt"
    opcodes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    plain = pickle.dumps({"model": {}, "a": [1, "b"]}, protocol=2)
    hostile = [call(module, name, proto) for (module, name), proto in itertools.product(GLOBALS, (2, 4))]
    for _ in range(PICKLES):
        body = bytearray(rng.choice(hostile + [plain]))
        for _ in range(rng.randrange(1, 4)):
            body.insert(rng.randrange(len(body)), rng.choice(opcodes)[0])
        hostile.append(bytes(body))
    before = None
    for data in hostile:
        path.write_bytes(data)
        before = before or {p.name for p in tmp_path.iterdir()}
        try:
            content = load_checkpoint_file(path)
        except UserError as e:
            assert str(path) in str(e) and "\n" not in str(e)
        else:
            assert isinstance(content, dict)
        assert {p.name for p in tmp_path.iterdir()} == before, data


def call(module, name, protocol):
    """A pickle that calls ``module.name`` with the name of a file, which it may create or remove."""
    text = b"touch made"
    arg = b"X" + len(text).to_bytes(4, "little") + text
    if protocol == 2:
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + arg + b"\x85R."
    names = b"".join(b"\x8c" + bytes([len(w)]) + w.encode() for w in (module, name))
    return b"\x80\x04" + names + b"\x93" + arg + b"\x85R."
