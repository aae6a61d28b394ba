"""The best alignment of given tokens under CTC (Viterbi)."""

from typing import Dict, List, Tuple

import torch
from torch import Tensor


def ctc_forced_align(
    log_probs: Tensor, lens: Tensor, tokens: List[List[int]], blank: int = 0
) -> Tuple[List[List[int]], Tensor]:
    """Return the first frame of each token in the most probable alignment of its sequence.

    Args:
      log_probs: (N, T, V).
      lens: (N,) valid frames.
      tokens: N sequences without blanks.
      blank: id of the blank.

    Returns:
      N lists with the first frame of each token, and the alignments' log-probabilities (N,): -inf
      where the frames are too few for the tokens, whose list has then no meaning.
    """
    lens = lens.to(log_probs.device)
    labels = _with_blanks(tokens, blank, log_probs.device)  # (N, S)
    score, back = _forward(
        log_probs.gather(2, labels.unsqueeze(1).expand(-1, log_probs.size(1), -1)), labels, lens, blank
    )
    ends = torch.tensor([2 * len(sequence) for sequence in tokens], device=labels.device).unsqueeze(1)
    before_end = (ends - 1).clamp(min=0)  # the last token, where the last blank is left out
    state = torch.where(score.gather(1, before_end) > score.gather(1, ends), before_end, ends)
    best = score.gather(1, state).squeeze(1)
    path = torch.empty(log_probs.shape[:2], dtype=torch.int64, device=labels.device)
    for t in range(log_probs.size(1) - 1, -1, -1):
        path[:, t] = state.squeeze(1)
        step = back[t].gather(1, state).long()
        state = torch.where((t < lens).unsqueeze(1), state - step, state)
    frames: List[List[int]] = []
    for sequence, states in zip(tokens, path.tolist()):
        first: Dict[int, int] = {}
        for t, at in enumerate(states):
            first.setdefault(at, t)
        frames.append([first.get(2 * u + 1, 0) for u in range(len(sequence))])
    return frames, best


def _with_blanks(tokens: List[List[int]], blank: int, device: torch.device) -> Tensor:
    """Sequences with blanks before, between and after their tokens, padded with blanks: (N, S)."""
    labels = torch.full(
        (len(tokens), 2 * max((len(s) for s in tokens), default=0) + 1), blank, dtype=torch.int64
    )
    for row, sequence in zip(labels, tokens):
        row[1 : 2 * len(sequence) : 2] = torch.tensor(sequence, dtype=torch.int64)
    return labels.to(device)


def _forward(scores: Tensor, labels: Tensor, lens: Tensor, blank: int) -> Tuple[Tensor, Tensor]:
    """Best scores (N, S) of reaching each state in the last frame; for each frame how many states
    its best way jumped, (T, N, S).
    """
    n, num_frames, num_states = scores.shape
    none = float("-inf")
    may_skip = torch.zeros_like(labels, dtype=torch.bool)  # the blank between two different tokens
    may_skip[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
    best = torch.full((n, num_states), none, dtype=scores.dtype, device=scores.device)
    best[:, 0] = 0  # before the first frame; a token may be entered from there as from a blank
    back = torch.zeros((num_frames, n, num_states), dtype=torch.int8, device=scores.device)
    for t in range(num_frames):
        one = torch.nn.functional.pad(best, (1, 0), value=none)[:, :-1]
        two = torch.nn.functional.pad(best, (2, 0), value=none)[:, :num_states].masked_fill(~may_skip, none)
        ways, jump = torch.stack([best, one, two]).max(dim=0)
        best = torch.where((t < lens).unsqueeze(1), ways + scores[:, t], best)
        back[t] = jump
    return best, back
