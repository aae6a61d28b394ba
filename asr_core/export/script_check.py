"""What a TorchScript file could do while it is loaded, read from its code without running it.

Loading runs the ``__setstate__`` of the file's classes, and an operator such as ``torch.from_file``
writes where it is told to. So the code is parsed first, and may only use operators that compute
with tensors: those of torch that take no text (a file's name is text) and have no name of their
internals, which begin with an underscore, besides lists of well-known ones. Operators and classes
of other libraries are refused. Whatever the checks below do not know is refused, too.
"""

import ast
import functools
import pickletools
import re
from typing import FrozenSet, List, NamedTuple, Optional, Set

import torch

from asr_core.utils.archives import repeated_entries
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

# Operators that take text, but neither as the name of a file nor of a program.
_TEXT = frozenset(
    "Delete Float Int __contains__ __getitem__ __interpolate __upsample _set_item add any capitalize center "
    "clear conv1d conv2d conv3d copy count device dict div div_ divide divide_ einsum endswith eq "
    "expandtabs find format ge gelu gelu_ get get_autocast_dtype gt index index_reduce index_reduce_ "
    "isalnum isalpha isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper "
    "items join keys le len linalg_cond linalg_eigh linalg_eigvalsh linalg_lstsq linalg_matrix_norm "
    "linalg_norm linalg_qr linalg_svd linalg_svdvals list ljust lower lstrip lt meshgrid nanquantile ne ord "
    "pad pad_sequence partition percentFormat pop popitem quantile remove replace rfind rindex rjust "
    "rpartition rsplit rstrip scatter scatter_ scatter_reduce scatter_reduce_ searchsorted segment_reduce "
    "setdefault slice sort sorted split splitlines startswith stft strip swapcase title update upper values "
    "warn zfill".split()
)
_FFT = re.compile(r"aten::fft_i?[rh]?fft[2n]?")  # their text is the kind of norm
# Operators of torch's internals that the code of usual models has.
_INTERNAL = frozenset(
    "__and__ __contains__ __derive_index __getitem__ __iand__ __ilshift__ __interpolate __ior__ __irshift__ "
    "__is__ __isnot__ __ixor__ __lshift__ __not__ __or__ __range_length __round_to_zero_floordiv __rshift__ "
    "__upsample __upsample_bilinear __upsample_nearest __xor__ _adaptive_avg_pool2d _cast_Byte _cast_Char "
    "_cast_Double _cast_Float _cast_Half _cast_Int _cast_Long _cast_Short _convolution _convolution_mode "
    "_infer_size _list_to_tensor _log_softmax _native_multi_head_attention _pack_padded_sequence "
    "_pad_packed_sequence _set_item _shape_as_tensor _size_if_not_equal _softmax _tensor_to_list "
    "_transformer_encoder_layer_fwd _unsafe_view _unwrap_optional _weight_norm".split()
)
_PRIM = frozenset(
    "EnumName EnumValue IfThenElse NumToTensor Print RaiseException StringIndex TupleIndex TupleUnpack "
    "Uninitialized abs data device dtype id index is_cpu is_cuda is_meta is_mkldnn is_mps is_nested "
    "is_quantized is_sparse is_sparse_csr is_xla is_xpu itemsize layout max min name nbytes rangelist "
    "requires_grad tolist type unchecked_cast unchecked_unwrap_optional".split()
)
# Functions without a dot in front.
_PLAIN = frozenset(
    "AssertionError Exception IndexError KeyError NotImplementedError RuntimeError TypeError ValueError abs "
    "all annotate any bin bool chr complex dict divmod enumerate float fork getattr hasattr hash hex int "
    "isinstance len list max min oct ord pow print range reversed round slice sorted str sum super tuple "
    "unchecked_cast uninitialized zip".split()
)
_DEFINED = ("list_with_default",)  # by torch's own code, not as operators
_ALIAS = re.compile(r"_\d+")  # a function of the file, by the name that torch gives it in the code
_STRING = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"')
# What would let Python's parser, which reads the code here, see another program than torch's does.
_ODD = re.compile(r"""[^\x20-\x7e\n]|['#\\]|\w"|""\s*"|"\w""")
_PICKLED = frozenset(
    "builtins.complex collections.OrderedDict torch.Size torch.device torch.dtype "
    "torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2 torch._utils._rebuild_parameter".split()
)
_PICKLED_KINDS = re.compile(r"torch\.\w+Storage|torch\.jit\._pickle\.\w+|__torch__\.[\w.]+")
_FOREIGN = re.compile(r"torch\s*\.\s*classes")


class _Refused(Exception):
    """Something that could reach outside the model."""


def check_torchscript(path: PathLike) -> None:
    """Read the code and the objects of a TorchScript file without running any of it.

    The file is read by torch's own reader, so that what is checked is what torch will load.

    Raises:
      UserError: it could do more than compute with tensors, or has a form that cannot be checked.
    """
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        names: List[str] = reader.get_all_records()
    except RuntimeError as e:
        raise UserError(f"{path} is damaged or no TorchScript file: {str(e).splitlines()[0]}") from e
    try:
        _check_names(names)
        for name in names:
            if name.endswith(".py"):
                _check_code(reader.get_record(name), name)
            elif name.endswith(".pkl"):
                _check_pickle(reader.get_record(name), name)
    except _Refused as e:
        raise UserError(
            f"{path} is not loaded, because it could do more than compute: {e};"
            " give --trust-model 1 if you trust whoever made it"
        ) from e


def _check_names(names: List[str]) -> None:
    repeated = repeated_entries(names)
    if repeated:
        raise _Refused(f"it holds {repeated[0]} twice")
    if "model.json" in names:
        raise _Refused("its format, of torch before 1.4, cannot be checked")


def _check_pickle(data: bytes, name: str) -> None:
    """Refuse objects other than tensors, containers and those of the file's own classes."""
    try:
        for opcode, value, _ in pickletools.genops(data):
            if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
                raise _Refused(f"{name} names a class in a way that cannot be checked")
            if not isinstance(value, str):
                continue
            named = value.replace(" ", ".")
            if _FOREIGN.search(named):
                raise _Refused(f"{name} holds an object of another library, {named}")
            if opcode.name == "GLOBAL" and named not in _PICKLED and not _PICKLED_KINDS.fullmatch(named):
                raise _Refused(f"{name} holds an object of type {named}")
    except _Refused:
        raise
    except Exception as e:  # pickletools raises many kinds, depending on the bytes
        raise _Refused(f"{name} cannot be checked ({e})") from e


def _check_code(data: bytes, name: str) -> None:
    """Refuse code that could do more than compute."""
    text = data.decode("latin-1")
    plain = _STRING.sub('""', text)
    odd = _ODD.search(plain) or re.search(r"[^\x20-\x7e\n]", text)
    if odd:
        line = odd.string.count("\n", 0, odd.start()) + 1
        raise _Refused(f"{name}, line {line}, is not written as torch writes code")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise _Refused(f"{name} cannot be checked ({e})") from e
    known: Set[int] = set()  # the words torch and ops whose use has been checked
    for node in ast.walk(tree):
        found = _found_in(node, known)
        if found:
            raise _Refused(f"{name}, line {getattr(node, 'lineno', 1)}, uses {found}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ("torch", "ops") and id(node) not in known:
            raise _Refused(f"{name}, line {node.lineno}, uses {node.id} as a value")


def _found_in(node: ast.AST, known: Set[int]) -> Optional[str]:
    """Return what is not allowed in one node of the code, or None."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.Global, ast.Lambda, ast.JoinedStr)):
        return type(node).__name__.lower()
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in _PLAIN and not _ALIAS.fullmatch(node.func.id):
            return node.func.id
        if node.func.id in ("getattr", "hasattr"):
            return _attribute_by_text(node)
    if isinstance(node, ast.Attribute):
        return _attribute(node, known)
    return None


def _attribute(node: ast.Attribute, known: Set[int]) -> Optional[str]:
    """Return the name of an attribute that is not allowed, or None."""
    of = node.value
    if isinstance(of, ast.Name) and of.id == "torch":
        known.add(id(of))
        return None if node.attr in _operators().allowed else f"torch.{node.attr}"
    if isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name) and of.value.id == "ops":
        known.add(id(of.value))
        allowed = {"aten": _operators().allowed, "prim": _PRIM}.get(of.attr, frozenset())
        return None if node.attr in allowed else f"ops.{of.attr}.{node.attr}"
    if isinstance(of, ast.Attribute) and (of.attr, node.attr) == ("torch", "classes"):
        return "torch.classes, the classes of another library"
    return node.attr if node.attr in _operators().refused else None


def _attribute_by_text(node: ast.Call) -> Optional[str]:
    """Return what is wrong with ``getattr(x, "name")``, or None."""
    roots = {part.id for part in ast.walk(node.args[0]) if isinstance(part, ast.Name)} if node.args else set()
    name = node.args[1] if len(node.args) == 2 else None
    plain = (
        isinstance(name, ast.Constant)
        and isinstance(name.value, str)
        and re.fullmatch(r"[\w.]*", name.value)
        and name.end_col_offset == name.col_offset + len(name.value) + 2  # no escapes, in one piece
        and name.end_lineno == name.lineno
    )
    if not plain or roots & {"torch", "ops", "__torch__", "CONSTANTS"}:
        return "getattr in an unusual way"
    assert isinstance(name, ast.Constant)
    return str(name.value) if name.value in _operators().refused else None


class _Operators(NamedTuple):
    """The names of torch's operators, by whether all that have the name only compute."""

    allowed: FrozenSet[str]
    refused: FrozenSet[str]


@functools.lru_cache(maxsize=None)
def _operators() -> _Operators:
    """Sort the operators that the installed torch has."""
    names, refused = set(_DEFINED), set()
    for schema in torch._C._jit_get_all_schemas():
        space, _, name = schema.name.partition("::")
        if space != "aten":  # torch.NAME, and the methods of values, are operators of aten
            continue
        names.add(name)
        if name not in _INTERNAL and (name.startswith("_") or (_takes_text(schema) and name not in _TEXT)):
            refused.add(name)
    return _Operators(frozenset(names - refused), frozenset(refused))


def _takes_text(schema: torch._C.FunctionSchema) -> bool:
    """Return whether an operator takes text or an object of another library."""
    kinds = " ".join(str(argument.type) for argument in schema.arguments)
    return re.search(r"\bstr\b|torch\.classes", kinds) is not None and not _FFT.fullmatch(schema.name)
