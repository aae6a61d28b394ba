"""The rows of weights that belong to single tokens, and their transfer to another tokenizer."""

from typing import Dict, Mapping, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.utils.errors import UserError


def is_chosen(name: str, modules: Sequence[str]) -> bool:
    """Return whether a parameter belongs to one of ``modules``; all do if there are none."""
    return not modules or any(f"{name}.".startswith(f"{m}.") for m in modules)


def token_dims(own: Mapping[str, Tensor], larger: Mapping[str, Tensor]) -> Dict[str, int]:
    """Return the parameters that have a row for each token, and the dimension of these rows.

    They are those whose shape changes with the number of tokens, whatever heads the model has.

    Args:
      own: state dict of a model.
      larger: that of such a model with more tokens.
    """
    dims: Dict[str, int] = {}
    for name, tensor in own.items():
        changed = [d for d, (a, b) in enumerate(zip(tensor.shape, larger[name].shape)) if a != b]
        if changed:
            dims[name] = changed[0]
    return dims


def match_tokens(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    dims: Mapping[str, int],
    pieces: Sequence[str],
    own_pieces: Sequence[str],
) -> Tuple[Dict[str, Tensor], int]:
    """Return weights for other tokens: rows of tokens that both have are taken over.

    Args:
      state: state dict of a model with tokens ``pieces``.
      own: state dict of a new model with tokens ``own_pieces``, whose other rows remain.
      dims: parameters with a row for each token, see :func:`token_dims`.
      pieces, own_pieces: tokens by id.

    Returns:
      The state dict, with everything that has no rows of tokens from ``state``; and the number of
      tokens that both have.

    Raises:
      UserError: the weights do not have as many rows as there are tokens.
    """
    places = {piece: i for i, piece in enumerate(pieces)}
    to = [i for i, piece in enumerate(own_pieces) if piece in places]
    source, target = torch.tensor([places[own_pieces[i]] for i in to]), torch.tensor(to)
    out = dict(state)
    for name, dim in dims.items():
        if name not in state:
            continue  # load_state says that it is missing
        if state[name].dim() != own[name].dim() or state[name].size(dim) != len(pieces):
            raise UserError(
                f"{name} has shape {tuple(state[name].shape)}, which is not of {len(pieces)} tokens"
            )
        other = [n for d, n in enumerate(state[name].shape) if d != dim]
        if other != [n for d, n in enumerate(own[name].shape) if d != dim]:
            continue  # load_state says that it does not fit
        rows = state[name].index_select(dim, source).to(own[name].dtype)
        out[name] = own[name].clone().index_copy_(dim, target, rows)
    return out, len(to)
