"""The entry point of all programs of a recipe.

Each program in a recipe's folder (``train.py``, ``decode.py``, ...) is the same stub, which calls
``run(__file__, __name__)``. The stub's file name selects the program, and the ``recipe.py`` beside
it holds everything particular to the recipe, as names in capitals (see :class:`RecipeFile`)::

    BASE = "../librispeech.py"
    EXP_DIR = "conformer/exp"
    ENCODER = "conformer"
    DEFAULTS = {"train": {"model_size": "icefall"}}
"""

import dataclasses
import functools
import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple, Type

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from asr_core.data.corpus import Corpus
    from asr_core.training.asr_recipe import AsrRecipe


@dataclass(frozen=True)
class Program:
    """A program that a stub may be named after.

    Attributes:
      module: the module of ``asr_core.bin`` whose ``main`` runs.
      passes: the attributes of :class:`RecipeFile` that ``main`` takes as keyword arguments.
      implied: the options whose defaults follow from other attributes than ``defaults``.
    """

    module: str
    passes: Tuple[str, ...] = ()
    implied: Tuple[str, ...] = ()


_DECODING = ("exp_dir", "encoder", "bpe_model")
_EXPORT = ("exp_dir", "encoder", "tokens")
ASR_PROGRAMS: Dict[str, Program] = {
    "train": Program(
        "train",
        ("corpus", "recipe", "options", "encoders", "models", "defaults"),
        ("exp_dir", "bpe_model"),
    ),
    "finetune": Program("finetune", ("corpus", "encoders", "defaults"), ("exp_dir",)),
    "decode": Program("decode", ("corpus", "defaults"), _DECODING),
    "ctc_decode": Program("ctc_decode", ("corpus", "defaults"), _DECODING),
    "streaming_decode": Program("streaming_decode", ("corpus", "defaults"), _DECODING),
    "export": Program("export", ("script_name", "defaults"), _EXPORT),
    "jit_trace_export": Program("jit_trace_export", ("defaults",), _EXPORT),
    "generate_averaged_model": Program("generate_averaged_model", ("defaults",), _EXPORT),
    "transcribe": Program("transcribe", ("defaults",), ("model",)),
    "pretrained": Program("transcribe", ("defaults",), ("encoder",)),
    "jit_pretrained": Program("transcribe", ("defaults",)),
    "jit_pretrained_streaming": Program("transcribe", ("defaults",)),
    "jit_trace_pretrained": Program("jit_trace_pretrained", ("defaults",)),
}
LM_PROGRAMS: Dict[str, Program] = {
    "train": Program("train_lm", ("lm_type", "defaults")),
    "export": Program("export_lm", ("lm_type",)),
    "compute_perplexity": Program("lm_perplexity", ("lm_type",)),
}


@dataclass(frozen=True)
class RecipeFile:
    """The contents of a ``recipe.py``; there, attributes are names in capitals (``CORPUS``, ...).

    A recipe of a language model sets ``LM_TYPE``, all others set ``CORPUS``; the rest is optional.
    Recipes on one corpus share a file: ``BASE = "../librispeech.py"`` takes from there whatever the
    recipe does not set itself, and merges ``DEFAULTS`` option by option. A constant that belongs to
    the file alone starts with an underscore.

    Attributes:
      corpus: the class that finds the cuts.
      recipe: the class that changes a part of the training, as ``"FILE:CLASS"``; the file is
        relative to the recipe's folder. It is loaded when training starts, because it needs torch.
      options: the option dataclasses of that class.
      encoder: the kind of encoder, if it is not the Zipformer.
      models: the configurations that ``train.py --model`` offers, by name: defaults of options,
        ``encoder`` among them, that take precedence over ``defaults``.
      exp_dir: the experiment folder. It is the default of programs that train or read checkpoints;
        ``finetune.py`` writes into ``<exp_dir>_finetune``, and ``transcribe.py`` looks here for the
        exported model.
      lang_dir: the folder of the tokenizer for training, decoding and export. Fine-tuning needs the
        tokenizer of the model that it starts from.
      script_name: the name of the exported TorchScript file, if it is not the usual one.
      lm_type: the kind of language model, ``"rnn"`` or ``"transformer"``.
      defaults: the recipe's defaults of options, by program and option.
    """

    corpus: "Optional[Type[Corpus]]" = None
    recipe: str = ""
    options: Sequence[type] = ()
    encoder: str = ""
    models: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    exp_dir: str = ""
    lang_dir: str = ""
    script_name: str = ""
    lm_type: str = ""
    defaults: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def programs(self) -> Dict[str, Program]:
        """The programs that this recipe can have, by the names of their stubs."""
        return LM_PROGRAMS if self.lm_type else ASR_PROGRAMS

    def arguments(self, name: str, stub: str) -> Dict[str, object]:
        """Return the keyword arguments for the ``main`` of program ``name``.

        Args:
          name: one of :attr:`programs`.
          stub: a file in the recipe's folder.
        """
        program = self.programs[name]
        suffix = "_finetune" if name == "finetune" else ""
        implied = {
            "exp_dir": self.exp_dir and self.exp_dir + suffix,
            "encoder": self.encoder,
            "bpe_model": self.lang_dir and f"{self.lang_dir}/bpe.model",
            "tokens": self.lang_dir and f"{self.lang_dir}/tokens.txt",
            "model": self.exp_dir and f"{self.exp_dir}/{self.script_name or 'jit_script.pt'}",
        }
        encoder = {"encoder": self.encoder} if self.encoder else {}
        offered = {
            "corpus": self.corpus,
            "recipe": functools.partial(load_class, self.recipe, stub) if self.recipe else None,
            "options": self.options,
            "encoders": tuple(encoder.values()),
            "models": {key: {**encoder, **options} for key, options in self.models.items()},
            "script_name": self.script_name,
            "lm_type": self.lm_type,
            "defaults": {
                **{option: implied[option] for option in program.implied if implied[option]},
                **self.defaults.get(name, {}),
            },
        }
        return {argument: offered[argument] for argument in program.passes if offered[argument]}


def load_file(path: str, beside: str) -> ModuleType:
    """Load a Python file as a module, once per process.

    ``sys.path`` stays as it is, because recipes have files of the same names. The module's name
    derives from the file's path, which is the same in all processes, so its classes can be pickled.

    Args:
      path: the file, relative to the folder of ``beside``.
      beside: a file in that folder, usually the caller's ``__file__``.
    """
    file = Path(os.path.abspath(Path(beside).parent / path))
    name = "recipe_file_" + re.sub(r"\W", "_", str(file.with_suffix("")))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_class(source: str, beside: str) -> "Type[AsrRecipe]":
    """Load the class that ``source``, ``"FILE:CLASS"``, names.

    Args:
      source: the file, relative to the folder of ``beside``, and the class.
      beside: a file in that folder.

    Raises:
      UserError: there is no such file or class.
    """
    path, _, name = source.partition(":")
    if not (Path(beside).parent / path).is_file():
        raise UserError(f"RECIPE {source!r}: {Path(beside).parent} has no file {path}; give FILE:CLASS")
    module = load_file(path, beside)
    if not hasattr(module, name):
        raise UserError(f"RECIPE {source!r}: {module.__file__} has no class {name!r}; give FILE:CLASS")
    return getattr(module, name)


def read_recipe(stub: str) -> RecipeFile:
    """Read the ``recipe.py`` next to a stub.

    Raises:
      UserError: the file is missing, or it sets unknown names.
    """
    path = Path(os.path.normpath(stub)).parent / "recipe.py"
    if not path.is_file():
        raise UserError(
            f"{path.parent} has no recipe.py, which describes the recipe: copy that of another recipe "
            "and adapt it (docs/recipe.md)"
        )
    settings = _settings(path)
    if ("CORPUS" in settings) == ("LM_TYPE" in settings):
        raise UserError(f"{path} must set either CORPUS or, for a language model, LM_TYPE")
    recipe = RecipeFile(**{name.lower(): value for name, value in settings.items()})
    unknown = sorted(set(recipe.defaults) - set(recipe.programs))
    if unknown:
        raise UserError(
            f"{path}: DEFAULTS names no program {unknown[0]!r}; it may have {_listed(recipe.programs)}"
        )
    return recipe


def _settings(path: Path) -> Dict[str, Any]:
    """Return the public names in capitals that a recipe file and its ``BASE`` set."""
    module = load_file(path.name, beside=str(path))
    settings = {name: value for name, value in vars(module).items() if name.isupper() and name[0] != "_"}
    known = ["BASE", *(f.name.upper() for f in dataclasses.fields(RecipeFile))]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(
            f"{path} sets the unknown name {unknown[0]}; known are {_listed(known)}. Let a constant of "
            "the file's own start with an underscore"
        )
    base = settings.pop("BASE", None)
    if base is None:
        return settings
    if not (path.parent / base).is_file():
        raise UserError(f"{path}: BASE {base!r} does not exist; it is relative to the file's folder")
    shared = _settings(path.parent / base)
    below, own = shared.get("DEFAULTS", {}), settings.get("DEFAULTS", {})
    merged = {name: {**below.get(name, {}), **own.get(name, {})} for name in {**below, **own}}
    return {**shared, **settings, "DEFAULTS": merged}


def run(stub: str, module_name: str, argv: Optional[Sequence[str]] = None) -> None:
    """Run the program that a stub is named after, as the ``recipe.py`` next to it describes.

    A process that :mod:`multiprocessing` spawns imports the stub again, under another name than
    ``__main__``. Then the recipe is only loaded, so that its classes can be unpickled.

    Args:
      stub: the stub's ``__file__``.
      module_name: the stub's ``__name__``.
      argv: the command line; by default that of the process.
    """
    if module_name == "__main__":
        run_program(lambda: _start(stub, argv))
    else:
        read_recipe(stub)


def _start(stub: str, argv: Optional[Sequence[str]]) -> None:
    recipe, name = read_recipe(stub), Path(stub).stem
    if name not in recipe.programs:
        files = _listed(f"{known}.py" for known in recipe.programs)
        raise UserError(f"{os.path.normpath(stub)} is not named after a program; rename it to one of {files}")
    module = importlib.import_module(f"asr_core.bin.{recipe.programs[name].module}")
    module.main(argv=argv, **recipe.arguments(name, stub))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
