"""TorchScript files: ours load, and those that could do more than compute are refused unread."""

import io
import zipfile
from typing import Tuple

import pytest
import torch
from tiny import write_audio
from tiny import write_run as write_tiny_run
from torch import Tensor, nn

from asr_core.bin import export, jit_trace_export, jit_trace_pretrained, transcribe
from asr_core.export.script_check import check_torchscript
from asr_core.export.torchscript import open_torchscript
from asr_core.export.traced import FILES
from asr_core.utils.errors import UserError


class Thief(nn.Module):
    """A module that overwrites the file "victim" of the current folder while it is loaded."""

    def __init__(self):
        super().__init__()
        self.weight = torch.zeros(4)

    @torch.jit.export
    def __getstate__(self) -> Tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, bool]) -> None:
        self.weight = torch.from_file("victim", True, 4).fill_(7)
        self.training = state[1]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


@pytest.fixture
def thief(tmp_path, monkeypatch):
    """The bytes of a file of torch that overwrites; ``victim`` lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").write_bytes(b"do not touch this")
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Thief()), buffer)
    return buffer.getvalue()


def rewritten(data, change):
    """An archive whose entries ``change(name, content)`` changed; an entry may become several."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            for name, content in change(entry.filename, old.read(entry)):
                new.writestr(name, content)
    return out.getvalue()


def with_code(data, code):
    """The archive with other text in place of its call of from_file."""

    def change(name, content):
        if name.endswith(".py"):
            assert content.count(CALL) == 1
            content = content.replace(CALL, code.encode("latin-1"))
        return [] if name.endswith(".debug_pkl") else [(name, content)]

    return rewritten(data, change)


CALL = b'torch.fill_(torch.from_file("victim", True, 4), 7)'
ARGS = '("victim", True, 4)'
WRITTEN = [  # how the operator could be written, or hidden; some of these torch itself does not read
    f"torch.from_file{ARGS}",
    f"torch . from_file{ARGS}",
    f"ops.aten.from_file{ARGS}",
    f'getattr(torch, "from_file"){ARGS}',
    f'getattr(torch, "from" "_file"){ARGS}',
    f'getattr(torch, "fr\\157m_file"){ARGS}',
    f'getattr(ops.aten, "from_file"){ARGS}',
    f"torch.autograd.from_file{ARGS}",
    f'torch.ones([4])\n    # \r    x = torch.from_file{ARGS}\n    y = "',
    f"torch.ones([4])\n    '''\n    a = 'b'\n    torch.from_file{ARGS}",
    f'torch.ones([4])\n    z = r"\\"; torch.from_file{ARGS}; "\\""',
    'torch.ones([4])\n    torch.save([1], "victim")',
    'torch.ones([4])\n    ops.aten.save([1], "victim")',
    'torch.ones([4])\n    a = ops.torchaudio.sox_io_save_audio_file("victim")',
    'torch.ones([4])\n    b = rpc_sync("worker", f)',
    "torch.ones([4])\n    t = torch\n    t2 = ops",
    "torch.ones([4])\n    c = __torch__.torch.classes.dist.Store()",
    'torch.ones([4])\n    d = getattr(__torch__.torch, "classes")',
    "torch.ones([4])\n    e = ｆrom_file".encode().decode("latin-1"),
    "torch.ones([4])\n    import os",
    "torch._sparse_coo_tensor_unsafe(a, b, [4])",
]


@pytest.mark.parametrize("code", WRITTEN)
def test_code_that_reaches_outside_is_refused_before_it_runs(thief, tmp_path, code):
    path = tmp_path / "m.pt"
    path.write_bytes(with_code(thief, code))
    with pytest.raises(
        UserError, match=r"m\.pt is not loaded, because .*: code/.*py, line \d+, .*--trust-model 1"
    ):
        open_torchscript(path)
    assert (tmp_path / "victim").read_bytes() == b"do not touch this"


def test_the_attack_is_real_and_trust_lets_it_through(thief, tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(thief)
    with pytest.raises(
        UserError, match=r"line \d+, uses torch\.from_file; give --trust-model 1 if you trust"
    ):
        open_torchscript(path)
    assert (tmp_path / "victim").read_bytes() == b"do not touch this"
    open_torchscript(path, trust=True)
    assert (tmp_path / "victim").read_bytes() != b"do not touch this"


def test_what_only_computes_is_loaded(thief, tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(with_code(thief, 'torch.ones([4], dtype=None, device=torch.device("cpu"))'))
    module = open_torchscript(path).module
    assert module(torch.ones(4)).tolist() == [2, 2, 2, 2]


def test_archives_that_two_readers_could_read_differently_are_refused(thief, tmp_path):
    good = with_code(thief, "torch.ones([4])")
    check = tmp_path / "m.pt"
    evil = zipfile.ZipFile(io.BytesIO(thief))
    code = next(name for name in evil.namelist() if name.endswith(".py"))

    def twice(name, content, other):
        return [(name, content), (other, evil.read(code))] if name == code else [(name, content)]

    for other in (code, code.replace("code", "CODE")):
        check.write_bytes(rewritten(good, lambda name, content, o=other: twice(name, content, o)))
        with pytest.raises(UserError, match="twice"):
            open_torchscript(check)
        with pytest.raises(UserError, match="twice"):
            check_torchscript(check)
    check.write_bytes(b"0000PTMF" + thief)
    with pytest.raises(UserError, match="damaged"):
        open_torchscript(check)
    check.write_bytes(
        rewritten(good, lambda name, content: [(name.replace("byteorder", "model.json"), content)])
    )
    with pytest.raises(UserError, match="before 1.4"):
        open_torchscript(check)
    assert (tmp_path / "victim").read_bytes() == b"do not touch this"


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02c__torch__.torch.classes.dist\nStore\n.",
        b"\x80\x02ctorch.jit._pickle\nrestore_type_tag\nX\x17\x00\x00\x00__torch__.torch.classes.",
        b"\x80\x02cposix\nsystem\n.",
        b"\x80\x02X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93.",
        b"\x80\x02(iposix\nsystem\n.",
        b"\xff\xff",
        b"",
    ],
)
def test_objects_of_other_libraries_are_refused(thief, tmp_path, pickled):
    good = with_code(thief, "torch.ones([4])")
    path = tmp_path / "m.pt"
    path.write_bytes(
        rewritten(good, lambda name, content: [(name, pickled if name.endswith("/data.pkl") else content)])
    )
    with pytest.raises(UserError, match=r"data\.pkl"):
        open_torchscript(path)


def test_programs_refuse_and_trust(thief, tmp_path, capsys):
    path = tmp_path / "m.pt"
    path.write_bytes(thief)
    audio = str(write_audio(tmp_path, n=1)[0])
    traced = [f"--{part}-model-filename={path}" for part in FILES]
    for main, model in ((transcribe.main, [f"--model={path}"]), (jit_trace_pretrained.main, traced)):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(argv=[*model, audio])
        assert stop.value.code == 1
        assert "--trust-model 1" in capsys.readouterr().err.splitlines()[-1]
        assert (tmp_path / "victim").read_bytes() == b"do not touch this"
        with pytest.raises(SystemExit):  # loaded now, but it is no model
            main(argv=[*model, "--trust-model", "1", audio])
        assert "--trust-model" not in capsys.readouterr().err
        assert (tmp_path / "victim").read_bytes() != b"do not touch this"
        (tmp_path / "victim").write_bytes(b"do not touch this")


class Usual(nn.Module):
    """Operators and forms of code that other exporters' models have."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(4, 4, 3, padding="same"), nn.GELU(), nn.GLU(dim=1))
        self.lstm = nn.LSTM(2, 3)
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)).cpu()
        self.words = {"a": 1}

    def forward(self, x: Tensor, lens: Tensor) -> Tuple[Tensor, Tensor]:
        assert x.dim() == 3, f"three axes, not {x.dim()}: don't"
        x = nn.functional.pad(x, (0, 2), "constant", 0.0)
        x = torch.logaddexp(x, torch.zeros_like(x)) + torch.einsum("ij,ij->i", x[0], x[0]).sum()
        spectrum = torch.stft(x[0], 4, 2, window=torch.hann_window(4), return_complex=True).abs()
        packed = nn.utils.rnn.pack_padded_sequence(self.layers(x).transpose(1, 2), lens, batch_first=True)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        words = [key.upper() for key in self.words.keys()]
        if len(words) > 3:
            raise ValueError('it\'s "too" long: \u00e4 # no comment')
        mask = torch.div(torch.arange(3), 2, rounding_mode="floor") > 0
        return y.masked_fill(mask, float("-inf")).log_softmax(-1), spectrum


def test_models_of_other_exporters_pass(tmp_path):
    torch.manual_seed(0)
    model = Usual().eval()
    del model.norm
    torch.jit.save(torch.jit.script(model), tmp_path / "script.pt")
    torch.jit.save(
        torch.jit.trace(model, (torch.randn(2, 4, 9), torch.tensor([9, 7]))), tmp_path / "trace.pt"
    )
    for name in ("script.pt", "trace.pt"):
        module = open_torchscript(tmp_path / name).module
        x = torch.randn(2, 4, 9)
        torch.testing.assert_close(
            module(x, torch.tensor([9, 7])), model(x, torch.tensor([9, 7])), equal_nan=True
        )


def test_our_own_exports_pass(tmp_path):
    write_tiny_run(tmp_path, causal=True)
    common = ["--epoch", "1", "--avg", "1", "--use-averaged-model", "0", "--exp-dir", str(tmp_path)]
    chunks = ["--chunk-size", "16", "--left-context-frames", "32"]
    export.main(argv=[*common, "--jit", "1", *chunks])
    export.main(argv=[*common, "--jit", "1", "--chunk-size", "-1", "--left-context-frames", "-1"])
    jit_trace_export.main(argv=[*common, *chunks])
    found = sorted(tmp_path.glob("*jit*.pt"))
    assert len(found) == 5
    for path in found:
        check_torchscript(path)
