"""CTC on the output of inner stacks (Lee and Watanabe 2021, https://arxiv.org/abs/2102.03216)."""

from typing import List, Sequence

from torch import Tensor, nn

from asr_core.nn.bypass import SimpleDownsample


class IntermediateCtc(nn.Module):
    """CTC heads on some stacks of an encoder, (T, N, C_i) -> (N, T', V), to regularise training.

    Args:
      stacks: numbers of the stacks, from 1.
      stack_dims: width C_i of each stack of the encoder.
      vocab_size: number V of tokens, blank included.
      downsample: factor from the frame rate of the stacks' outputs to that of the encoder's.

    Raises:
      ValueError: there is no such stack.
    """

    def __init__(
        self, stacks: Sequence[int], stack_dims: Sequence[int], vocab_size: int, downsample: int = 2
    ) -> None:
        super().__init__()
        for stack in stacks:
            if not 1 <= stack <= len(stack_dims):
                raise ValueError(f"the encoder has stacks 1 to {len(stack_dims)}, not {stack}")
        self.stacks = tuple(stacks)
        self.downsample = nn.ModuleList(
            [SimpleDownsample(downsample) if downsample > 1 else nn.Identity() for _ in stacks]
        )
        self.output = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Dropout(p=0.1), nn.Linear(stack_dims[s - 1], vocab_size), nn.LogSoftmax(dim=-1)
                )
                for s in stacks
            ]
        )

    def forward(self, outputs: List[Tensor]) -> List[Tensor]:
        """Compute log-probabilities (N, ceil(T / downsample), V) of the stacks with a head.

        Args:
          outputs: (T, N, C_i) of all stacks.
        """
        parts = zip(self.stacks, self.downsample, self.output)
        return [output(downsample(outputs[stack - 1]).transpose(0, 1)) for stack, downsample, output in parts]
