"""The small reference model: its arrays and how to build it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_core.encoders import Zipformer2
from asr_core.models import AsrModel
from asr_core.models.joiner import Joiner
from asr_core.nn.subsampling import Conv2dSubsampling
from asr_core.predictors import StatelessPredictor

GOLDEN = Path(__file__).parents[1] / "golden"


class Golden:
    """zipformer_small.npz and the models it was computed with."""

    def __init__(self) -> None:
        self.arrays = np.load(GOLDEN / "zipformer_small.npz")
        self.meta = json.loads((GOLDEN / "zipformer_small.json").read_text())

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def model(self, tag: str, mask_padding: bool = True, **encoder_args) -> AsrModel:
        meta = self.meta
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in meta["config"].items()}
        encoder = Zipformer2(
            output_downsampling_factor=2, **config, mask_padding=mask_padding, **encoder_args
        )
        dims = dict(decoder_dim=meta["decoder_dim"], vocab_size=meta["vocab_size"])
        model = AsrModel(
            encoder_embed=Conv2dSubsampling(80, config["encoder_dim"][0], mask_padding=mask_padding),
            encoder=encoder,
            decoder=StatelessPredictor(blank_id=meta["blank_id"], context_size=meta["context_size"], **dims),
            joiner=Joiner(encoder_dim=encoder.output_dim, joiner_dim=meta["joiner_dim"], **dims),
            encoder_dim=encoder.output_dim,
            use_transducer=True,
            use_ctc=True,
            **dims,
        )
        prefix = f"{tag}.state_dict/"
        model.load_state_dict(
            {k[len(prefix) :]: self.tensor(k) for k in self.arrays.files if k.startswith(prefix)}
        )
        return model.eval()

    def noncausal(self, mask_padding: bool = True) -> AsrModel:
        return self.model("noncausal", mask_padding)

    def causal(
        self, chunk_size: int = 16, left_context_frames: int = 64, mask_padding: bool = True
    ) -> AsrModel:
        return self.model(
            "causal_chunk16_left64",
            mask_padding,
            causal=True,
            chunk_size=(chunk_size,),
            left_context_frames=(left_context_frames,),
        )


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()
