"""Loading of neural language models from the checkpoints of their training (ours, or icefall's
``rnn_lm``).
"""

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from asr_core.lm.neural import NeuralLm, RnnLm, TransformerLm
from asr_core.lm.options import LmOptions, RnnOptions, TransformerOptions
from asr_core.models.averaging import average_state_dicts, refuse_other_tokens, select_checkpoints
from asr_core.models.checkpoint import load_checkpoint_file, load_state
from asr_core.text.pieces import difference, recorded_pieces
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of, flag


def load_lm(
    opts: LmOptions,
    vocab_size: Optional[int],
    device: Union[str, torch.device] = "cpu",
    lm_type: str = "rnn",
    pieces: Optional[Sequence[str]] = None,
) -> NeuralLm:
    """Load the language model that the options name for the use with an acoustic model, in
    evaluation mode.

    Args:
      opts, lm_type: see :func:`load_lm_and_pieces`.
      vocab_size: number of tokens of the acoustic model, which both must share; None without one.
      device: device to load the model onto.
      pieces: tokens of the acoustic model by id, if they are known.

    Raises:
      UserError: as :func:`load_lm_and_pieces`, or the model is one of other tokens.
    """
    model, recorded = load_lm_and_pieces(opts, lm_type)
    try:
        if vocab_size not in (None, model.vocab_size):
            raise UserError(
                f"the language model has {model.vocab_size} tokens and the acoustic model {vocab_size}: "
                "they must have the same"
            )
        if recorded is not None and pieces is not None:
            _check_pieces(recorded, pieces)
    except UserError as e:
        raise UserError(f"{_folder(opts, lm_type)}: {e}") from e
    return model.to(device)


def load_lm_and_pieces(opts: LmOptions, lm_type: str = "rnn") -> Tuple[NeuralLm, Optional[List[str]]]:
    """Load the language model that the options name onto the CPU, in evaluation mode, and its
    tokens by id, None if it does not record them.

    Its sizes are those of the weights; a size in ``opts`` that is not the default must agree with
    them.

    Args:
      opts: folder, epochs, and sizes.
      lm_type: ``"rnn"`` or ``"transformer"``.

    Raises:
      UserError: no folder is given, checkpoints are missing, or they hold another kind or size of
        model.
    """
    paths = select_checkpoints(
        _folder(opts, lm_type), epoch=opts.lm_epoch, iter=0, avg=opts.lm_avg, use_averaged_model=False
    )
    contents = [load_checkpoint_file(path) for path in paths]
    states = [_weights(content, path) for content, path in zip(contents, paths)]
    try:
        model, sizes = _build(lm_type, states[0], contents[0], opts)
        _check_sizes(opts, sizes)
        recorded = recorded_pieces(contents[0])
        refuse_other_tokens(contents, paths)
        load_state(model, average_state_dicts(states) if len(states) > 1 else states[0])
    except UserError as e:
        raise UserError(f"{paths[0]}: {e}") from e
    return model.eval().requires_grad_(False), recorded


def _folder(opts: LmOptions, lm_type: str) -> str:
    folder = opts.lm_exp_dir or (opts.transformer_lm_exp_dir if lm_type == "transformer" else None)
    if not folder:
        raise UserError("give the language model's folder with --lm-exp-dir")
    return folder


def _check_pieces(own: Sequence[str], pieces: Sequence[str]) -> None:
    """Refuse a language model of other tokens than those it is used with."""
    found = difference(own, pieces, "of what it is used with")
    if found:
        raise UserError(
            f"the language model was trained with another tokenizer: {found}; train one on data that "
            "prepare_lm_data makes with this tokenizer"
        )


def _weights(content: Mapping[str, Any], path: Path) -> Dict[str, Tensor]:
    """Return the weights in a checkpoint; names may begin with "module.", as DDP writes them."""
    state = content.get("model")
    if not isinstance(state, dict):
        raise UserError(f"{path} holds no language model")
    plain = {name[len("module.") :] if name.startswith("module.") else name: x for name, x in state.items()}
    if "input_embedding.weight" not in plain:
        raise UserError(f"{path} holds no language model")
    return plain


def _kind(state: Mapping[str, Tensor]) -> str:
    """Return the type of the language model that has these weights."""
    if "rnn.weight_ih_l0" in state:
        return "rnn"
    return "transformer" if "layers.0.in_proj.weight" in state else "unknown"


def _build(
    lm_type: str, state: Mapping[str, Tensor], content: Mapping[str, Any], opts: LmOptions
) -> Tuple[NeuralLm, Dict[str, object]]:
    """Build a model of the sizes that the weights have; return it, and these sizes by the options'
    names.
    """
    if _kind(state) != lm_type:
        raise UserError(
            f"the weights are of a language model of type {_kind(state)}, not {lm_type}: "
            "give another --lm-type or --lm-exp-dir"
        )
    vocab_size, embedding_dim = state["input_embedding.weight"].shape
    tied = torch.equal(state["input_embedding.weight"], state["output_linear.weight"])
    model: NeuralLm
    if lm_type == "rnn":
        rnn = RnnOptions(
            embedding_dim=embedding_dim,
            hidden_dim=state["rnn.weight_hh_l0"].size(1),
            num_layers=sum(name.startswith("rnn.weight_hh_l") for name in state),
            tie_weights=tied,
        )
        model, sizes = RnnLm(vocab_size, rnn), dataclasses.asdict(rnn)
    else:
        transformer = TransformerOptions(
            encoder_dim=state["norm.weight"].size(0),
            embedding_dim=embedding_dim,
            dim_feedforward=state["layers.0.feed_forward.0.weight"].size(0),
            nhead=int(content.get("nhead", opts.transformer_lm_nhead)),
            num_layers=sum(name.endswith(".in_proj.weight") for name in state),
            tie_weights=tied,
        )
        model, sizes = TransformerLm(vocab_size, transformer), dataclasses.asdict(transformer)
        del sizes["dropout"]  # has no effect in decoding
    named = {f"{lm_type}_lm_{name}": value for name, value in sizes.items()}
    return model, {"lm_vocab_size": vocab_size, **named}


def _check_sizes(opts: LmOptions, sizes: Mapping[str, object]) -> None:
    """Refuse options that contradict the weights' sizes."""
    usual = defaults_of(LmOptions)
    for name, value in sizes.items():
        asked = getattr(opts, name)
        if asked not in (value, usual[name]):
            raise UserError(f"{flag(name)} {asked} contradicts the weights, which have {value}: leave it out")
