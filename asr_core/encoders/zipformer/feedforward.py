"""The feed-forward module of the Zipformer (Yao et al. 2023, section 3.2)."""

from typing import List

from torch import Tensor, nn

from asr_core.nn.draws import Chance
from asr_core.nn.scaling import ActivationDropoutAndLinear, Balancer, FloatLike, Whiten, whitening_limit


class FeedforwardModule(nn.Module):
    """Linear, SwooshL, dropout, linear.

    Args:
      embed_dim: width C of input and output.
      feedforward_dim: width inside.
      dropout: dropout rate; all frames of a sequence share the mask, since neighbouring frames are
        so alike that they would fill in each other's holes.
    """

    def __init__(self, embed_dim: int, feedforward_dim: int, dropout: FloatLike) -> None:
        super().__init__()
        self.in_proj = nn.Linear(embed_dim, feedforward_dim)
        # SwooshL is nearly linear for small inputs, hence the lower bound of the magnitude, and its
        # right half carries the signal, hence any share of positive values above 0.3 will do.
        self.hidden_balancer = Balancer(
            feedforward_dim, min_positive=0.3, max_positive=1.0, min_abs=0.75, max_abs=5.0
        )
        # a small initial scale makes each residual branch start close to zero
        self.out_proj = ActivationDropoutAndLinear(
            feedforward_dim,
            embed_dim,
            activation="SwooshL",
            dropout_p=dropout,
            dropout_shared_dim=0,
            initial_scale=0.1,
        )
        self.out_whiten = Whiten(1, whitening_limit=whitening_limit(7.5), prob=(0.025, 0.25), grad_scale=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each frame: x (T, N, C) -> (T, N, C)."""
        return self.out_whiten(self.out_proj(self.hidden_balancer(self.in_proj(x))))

    def chances(self) -> List[Chance]:
        """Return the modules that decide by chance, in the order in which they act."""
        return [self.hidden_balancer, self.out_proj, self.out_whiten]
