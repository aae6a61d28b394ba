"""Models from checkpoints of this library or of icefall's Zipformer recipes, and their averages."""

import contextlib
import pickle
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.encoders.registry import ENCODERS
from asr_core.models import icefall_names
from asr_core.models.asr_model import AsrModel
from asr_core.models.averaging import (
    average_of_range,
    average_state_dicts,
    ema_of,
    find_checkpoints,
    first_not_finite,
    numbered,
    refuse_other_tokens,
    select_checkpoints,
)
from asr_core.models.build import build_model
from asr_core.models.options import DEFAULT_ENCODER, CommonModelOptions, options_class
from asr_core.models.token_rows import is_chosen
from asr_core.utils import safe_pickle
from asr_core.utils.archives import check_archive
from asr_core.utils.errors import UserError
from asr_core.utils.options import (
    AttributeDict,
    as_recorded,
    defaults_of,
    expand_presets,
    flag,
    from_params,
)
from asr_core.utils.paths import PathLike

__all__ = [
    "average_of_range",
    "average_state_dicts",
    "find_checkpoints",
    "load_averaged_model",
    "load_checkpoint_file",
    "load_state",
    "model_from_checkpoint",
    "model_of",
    "model_options",
    "params_of_checkpoint",
    "select_checkpoints",
    "vocab_size_of",
    "weights_of",
]

# options that can be changed for given weights
_FREE = (
    "chunk_size",
    "left_context_frames",
    "decode_chunk_len",
    "num_left_chunks",
    "short_chunk_size",
    "use_cr_ctc",
)
# entries that are weights or states, the others being parameters
_STATES = (
    "model",
    "model_avg",
    "model_ema",
    "optimizer",
    "scheduler",
    "grad_scaler",
    "sampler",
    "random_states",
    "module_state",
    "train_state",
)


def load_checkpoint_file(path: PathLike) -> Dict[str, Any]:
    """Read a checkpoint onto the CPU without running code that it may carry.

    Raises:
      UserError: the file is missing, damaged, no checkpoint, or holds objects that are not loaded
        for safety.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such checkpoint: {path}")
    refuse_unreadable(path)
    check_archive(path)
    try:
        with warnings.catch_warnings():  # torch warns of pickle protocols before it refuses them
            warnings.simplefilter("ignore")
            content = _load(path)
    except safe_pickle.UnsafeObject as e:
        raise UserError(f"{path} holds an object of type {e}, which is not loaded for safety") from e
    except Exception as e:  # unpickling garbage raises anything
        reason = str(e).strip().splitlines()
        raise UserError(
            f"{path} is damaged or no checkpoint: {reason[0] if reason else type(e).__name__}"
        ) from e
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
    return icefall_names.convert(content)


class NotFinite(UserError):
    """Weights with NaN or infinity, with which a model computes nothing."""


class UnreadableCheckpoint(UserError):
    """A checkpoint that may be whole, but that the system does not let this process read."""


def refuse_unreadable(path: Path) -> None:
    """Check that the system lets this process read a file, before anything calls it damaged.

    Raises:
      UnreadableCheckpoint: it does not.
    """
    try:
        with path.open("rb") as f:
            f.read(1)
    except OSError as e:
        raise UnreadableCheckpoint(
            f"cannot read {path}: {e.strerror or e}; it need not be damaged, see to its permissions and disk"
        ) from e


def _load(path: Path) -> object:
    """Unpickle with torch's own safe loader or, where that refuses, with :mod:`safe_pickle`."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=safe_pickle)


def params_of_checkpoint(ckpt: Mapping[str, Any]) -> AttributeDict:
    """Return the options and derived values that a checkpoint records."""
    return AttributeDict(
        {k: str(v) if isinstance(v, Path) else v for k, v in ckpt.items() if k not in _STATES}
    )


def model_from_checkpoint(ckpt: Mapping[str, Any], overrides: Optional[Mapping[str, Any]] = None) -> AsrModel:
    """Build the model that a checkpoint describes and load its weights.

    Args:
      ckpt: a checkpoint with ``model``; its other entries give the options. Where it lacks them
        (icefall's ``pretrained.pt``), ``overrides`` must, or the defaults hold.
      overrides: model options given by the user.

    Raises:
      UserError: an override contradicts the checkpoint, or the weights do not fit the options.
    """
    state = weights_of(ckpt)
    opts = model_options(ckpt, overrides or {})
    model = build_model(
        opts, vocab_size_of(ckpt, state), int(ckpt.get("feature_dim", 80)), int(ckpt.get("blank_id", 0))
    )
    load_state(model, state)
    return model


def load_state(model: torch.nn.Module, state: Mapping[str, Tensor], modules: Sequence[str] = ()) -> None:
    """Load weights, all of them or none.

    Args:
      model: model that receives them.
      state: state dict.
      modules: if given, only the parameters of these modules are compared and loaded, e.g.
        ``["encoder_embed", "encoder"]``.

    Raises:
      UserError: names or shapes differ; the first such parameter is named. Or neither side has such
        a module.
    """
    own = _only(model.state_dict(), modules)
    state = _only(state, modules)
    for module in modules:
        if not _only(own, [module]) and not _only(state, [module]):
            raise UserError(f"there is no module {module!r}, neither in the model nor in the checkpoint")
    for name, tensor in own.items():
        if name not in state:
            raise UserError(f"the checkpoint lacks {name}, which these model options call for")
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{name} has shape {tuple(state[name].shape)} in the checkpoint"
                f" but {tuple(tensor.shape)} with these model options"
            )
    for name in state:
        if name not in own:
            raise UserError(f"the checkpoint has {name}, which these model options do not call for")
    name = first_not_finite(state)
    if name:
        raise NotFinite(f"the weights are not finite ({name})")
    model.load_state_dict(state, strict=not modules)


def _only(state: Mapping[str, Tensor], modules: Sequence[str]) -> Dict[str, Tensor]:
    """Return the entries of a state dict that belong to ``modules``; all if it is empty."""
    return {name: value for name, value in state.items() if is_chosen(name, modules)}


def load_averaged_model(
    exp_dir: PathLike,
    *,
    epoch: int,
    iter: int,
    avg: int,
    use_averaged_model: bool,
    overrides: Optional[Mapping[str, Any]] = None,
    use_ema: bool = False,
) -> Tuple[AsrModel, AttributeDict]:
    """Load the model of a run, averaged over checkpoints, and the parameters of the newest.

    Args:
      exp_dir: folder of the checkpoints.
      epoch, iter, avg, use_averaged_model: see :func:`select_checkpoints`.
      overrides: see :func:`model_from_checkpoint`.
      use_ema: take each checkpoint's exponential average instead of its weights.

    Raises:
      UserError: there are no such checkpoints, or not with such averages, or they do not fit
        together.
    """
    if use_ema and use_averaged_model:
        raise UserError(
            "--use-ema 1 and --use-averaged-model 1 are different averages: leave one of them out"
        )
    paths = select_checkpoints(
        exp_dir, epoch=epoch, iter=iter, avg=avg, use_averaged_model=use_averaged_model
    )
    newest = load_checkpoint_file(paths[0])
    if use_averaged_model:
        oldest = load_checkpoint_file(paths[1])
        with _averaging(paths):
            refuse_other_tokens([newest, oldest], paths)
            newest["model"] = average_of_range(oldest, newest)
    elif len(paths) > 1:
        states = [model_of(newest, paths[0], use_ema)]
        for path in paths[1:]:
            ckpt = load_checkpoint_file(path)
            with _averaging(paths):
                refuse_other_tokens([newest, ckpt], [paths[0], path])
            states.append(model_of(ckpt, path, use_ema))
        with _averaging(paths):
            newest["model"] = average_state_dicts(states)
    elif use_ema:
        newest["model"] = model_of(newest, paths[0], use_ema)
    try:
        model = model_from_checkpoint(newest, overrides)
    except NotFinite as e:
        part = "model_ema" if use_ema else "model_avg" if use_averaged_model else "model"
        raise _not_finite(paths, part, str(e)) from e
    except UserError as e:
        raise UserError(f"{paths[0]}: {e}") from e
    params = params_of_checkpoint(newest)
    params.setdefault("vocab_size", model.vocab_size)
    return model, params


def _not_finite(paths: Sequence[Path], part: str, why: str) -> NotFinite:
    """Return the error for weights that are not finite, with the newest usable checkpoint.

    Args:
      paths: the files that were loaded.
      part: the entry of them that was used.
      why: what was found out.
    """
    folder, at_fault = paths[0].parent, ", ".join(path.name for path in paths)
    for path in paths:
        name = first_not_finite(load_checkpoint_file(path).get(part) or {})
        if name:
            at_fault, why = path.name, f"the weights are not finite ({name})"
            break
    others = [(flag, found) for kind, flag in (("epoch", "--epoch"), ("checkpoint", "--iter"))
              for found in numbered(folder, kind) if found[1] not in paths]  # fmt: skip
    for option, (number, path) in sorted(others, key=lambda o: -o[1][1].stat().st_mtime):
        with contextlib.suppress(UserError):
            content = load_checkpoint_file(path)
            if content.get(part) and not first_not_finite(content[part]):
                return NotFinite(f"{folder / at_fault}: {why}: use {option} {number}")
    return NotFinite(f"{folder / at_fault}: {why}, as are those of all other checkpoints there")


@contextlib.contextmanager
def _averaging(paths: Sequence[Path]) -> Iterator[None]:
    """Name the averaged checkpoints in errors; ``paths`` has the newest first."""
    try:
        yield
    except UserError as e:
        raise UserError(
            f"cannot average {paths[-1].name} to {paths[0].name} of {paths[0].parent}: {e}"
        ) from e


def model_of(ckpt: Mapping[str, Any], path: Path, use_ema: Optional[bool]) -> Dict[str, Tensor]:
    """Return the weights of the checkpoint in file ``path``, or their exponential average.

    Args:
      ckpt: the checkpoint.
      path: its file, for messages.
      use_ema: whether to take the average; None: if training validated with it.

    Raises:
      UserError: it has none.
    """
    if use_ema is None:
        use_ema = bool(ckpt.get("valid_with_ema")) and ckpt.get("model_ema") is not None
    try:
        return ema_of(ckpt) if use_ema else weights_of(ckpt)
    except UserError as e:
        raise UserError(f"{path}: {e}") from e


def weights_of(ckpt: Mapping[str, Any]) -> Dict[str, Tensor]:
    """Return the state dict of a checkpoint's model, without the prefix of DistributedDataParallel.

    Raises:
      UserError: it has none.
    """
    state = ckpt.get("model")
    if not isinstance(state, dict):
        raise UserError("the checkpoint holds no model")
    if state and all(name.startswith("module.") for name in state):
        return {name[len("module.") :]: value for name, value in state.items()}
    return dict(state)


def vocab_size_of(ckpt: Mapping[str, Any], state: Mapping[str, Tensor]) -> int:
    """Return the number of tokens that a checkpoint records, or else that its weights show.

    Raises:
      UserError: neither does.
    """
    if ckpt.get("vocab_size"):
        return int(ckpt["vocab_size"])
    for name in ("decoder.embedding.weight", "ctc_output.1.weight"):
        if name in state:
            return state[name].size(0)
    raise UserError("the checkpoint does not record the size of its vocabulary")


def model_options(
    ckpt: Mapping[str, object], overrides: Mapping[str, object], free: bool = False
) -> CommonModelOptions:
    """Return the options of a checkpoint's model, or those given where it records none.

    Args:
      ckpt: a checkpoint.
      overrides: model options given by the user; a preset among them stands for its values.
      free: whether they may contradict the checkpoint, because only some of its modules are taken
        over.

    Raises:
      UserError: one of them contradicts the checkpoint.
    """
    sources = (overrides, ckpt) if free else (ckpt, overrides)
    encoder = str(next((s["encoder"] for s in sources if s.get("encoder")), DEFAULT_ENCODER))
    cls = options_class(encoder)
    _refuse_others(overrides, cls, encoder)
    given = expand_presets(cls, {name: value for name, value in overrides.items() if value is not None})
    recorded = expand_presets(cls, ckpt)
    common = defaults_of(CommonModelOptions)
    if ckpt.get("encoder", DEFAULT_ENCODER) != encoder:  # of another encoder only what all have in common
        recorded = {n: v for n, v in recorded.items() if n in common and n != "encoder"}
    if free or not set(recorded) - {"context_size", "encoder"}:  # bare weights, which the user describes
        return from_params(cls, {**recorded, **given})
    opts = from_params(cls, recorded)
    _refuse_contradictions(opts, from_params(cls, given), sorted(given, key=lambda name: name in common))
    return from_params(cls, {**recorded, **{name: given[name] for name in _FREE if name in given}})


def _refuse_others(overrides: Mapping[str, object], cls: type, encoder: str) -> None:
    """Refuse options of encoders other than ``encoder``, whose options have the class ``cls``."""
    own = defaults_of(cls)
    for other in ENCODERS:
        for name, default in defaults_of(options_class(other)).items():
            if name not in own and as_recorded(overrides.get(name)) not in (None, as_recorded(default)):
                raise UserError(
                    f"{flag(name)} is an option of encoder {other}, and this is encoder {encoder}: "
                    "leave it out"
                )


def _refuse_contradictions(
    trained: CommonModelOptions, given: CommonModelOptions, names: Sequence[str]
) -> None:
    """Refuse the first option of ``names`` whose value in ``given`` is not that in ``trained``."""
    for name in names:
        old, new = getattr(trained, name), getattr(given, name)
        if name in _FREE or _same(old, new):
            continue
        # a recipe's program has an encoder by default, which the user cannot leave out
        advice = f"give --encoder {old}" if name == "encoder" else "leave it out"
        raise UserError(
            f"{flag(name)} {as_recorded(new)} contradicts the checkpoint, which was trained with"
            f" {as_recorded(old)}: {advice}"
        )


def _same(one: object, other: object) -> bool:
    """Return whether two values of an option agree; a list of one entry equals its repetition."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        length = max(len(one), len(other))
        one, other = (v * length if len(v) == 1 else v for v in (one, other))
    return one == other or str(one) == str(other)
