"""The task of fine-tuning: training that starts from the weights of another run, on other data."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, MutableMapping

import torch
from torch import Tensor, nn

from asr_core.data.options import DataOptions
from asr_core.models.build import build_model
from asr_core.models.checkpoint import (
    load_checkpoint_file,
    load_state,
    model_of,
    model_options,
    vocab_size_of,
)
from asr_core.models.options import options_of
from asr_core.models.token_rows import is_chosen, match_tokens, token_dims
from asr_core.text.pieces import check_tokenizer, recorded_pieces
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.distributed.agreement import content_fact
from asr_core.training.finetune_options import FEATURE_OPTIONS, FinetuneOptions, starting_checkpoint
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of, flag, from_params, record_of

if TYPE_CHECKING:
    from lhotse import CutSet

    from asr_core.data.corpus import Corpus


_ADVICE = (
    "give the model's tokenizer with --bpe-model, or take over what it knows of the tokens that both have "
    "with --match-tokens 1, or the encoder alone with --init-modules encoder_embed,encoder"
)


class FinetuneRecipe(AsrRecipe):
    """Fine-tuning of a recognizer, whose configuration comes from the checkpoint it starts from.

    Arguments as of :class:`~asr_core.training.asr_recipe.AsrRecipe`.
    """

    def __init__(
        self, params: Mapping[str, Any], corpus: "Corpus", rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(params, corpus, rank, world_size)
        self.finetune = from_params(FinetuneOptions, params)
        self.batch_count_offset = self.finetune.batch_count_offset

    @classmethod
    def complete(cls, params: MutableMapping[str, Any]) -> None:
        """Check the options about the starting point, and adopt the checkpoint's configuration.

        Raises:
          UserError: options contradict each other or the checkpoint.
        """
        opts = from_params(FinetuneOptions, params)
        source = starting_checkpoint(opts, params)
        checkpoint = load_checkpoint_file(source)
        try:
            model = model_options(checkpoint, params, free=bool(opts.modules))
        except UserError as e:
            raise UserError(f"{source}: {e}") from e
        params.update(record_of(model))
        usual = defaults_of(DataOptions)
        for name, key in FEATURE_OPTIONS.items():
            trained = checkpoint.get(key)
            value = params.setdefault(name, trained or usual[name])
            if trained and value != trained and not opts.modules:
                raise UserError(f"{flag(name)} {value}: {source} was trained with {trained}")

    def build_model(self) -> nn.Module:
        """Build the model with the weights that fine-tuning starts from, on the CPU."""
        model = super().build_model()
        if not self.finetune.do_finetune:
            return model  # the loop restores the run that it continues
        path = Path(str(self.finetune.finetune_ckpt))
        checkpoint = load_checkpoint_file(path)
        state = model_of(checkpoint, path, self.finetune.use_ema)
        try:
            load_state(model, self._own_tokens(model, state, checkpoint), self.finetune.modules)
        except UserError as e:
            raise UserError(f"--finetune-ckpt {path}: {e}") from e
        return model

    def inputs(self) -> Dict[str, str]:
        """Return digests of the data and of the checkpoint that fine-tuning starts from."""
        start = starting_checkpoint(self.finetune, self.params)
        return {**super().inputs(), "the content of the checkpoint to start from": content_fact(start)}

    def _own_tokens(
        self, model: nn.Module, state: Mapping[str, Tensor], checkpoint: Mapping[str, Any]
    ) -> Mapping[str, Tensor]:
        """Return the weights for the tokens of this run's tokenizer.

        Raises:
          UserError: the checkpoint is of another tokenizer, and ``--match-tokens`` is not given or
            impossible.
        """
        opts, tokenizer = self.finetune, self.tokenizer
        size = vocab_size_of(checkpoint, state)
        pieces = recorded_pieces(checkpoint, Path(str(opts.finetune_ckpt)).parent, size)
        chosen = {name: dim for name, dim in self._token_dims(model).items() if is_chosen(name, opts.modules)}
        if not opts.match_tokens:
            if chosen:
                check_tokenizer(tokenizer, size, pieces, "this checkpoint", _ADVICE)
            return state
        if not chosen:
            raise UserError(
                f"--match-tokens 1: no module of --init-modules {opts.init_modules} knows of tokens"
            )
        if pieces is None:
            raise UserError(
                "--match-tokens 1: the checkpoint does not record its tokens; put the tokens.txt and "
                "params.json of its run beside it"
            )
        matched, number = match_tokens(state, model.state_dict(), chosen, pieces, tokenizer.pieces)
        logging.info(
            "%d of the %d tokens of %s are tokens of %s, too: their rows in %s are taken over, "
            "the others start afresh",
            number,
            tokenizer.vocab_size,
            tokenizer.path,
            opts.finetune_ckpt,
            ", ".join(chosen),
        )
        return matched

    def _token_dims(self, model: nn.Module) -> Dict[str, int]:
        """Return the dimension of the rows of tokens, by the names of parameters that have some."""
        with torch.random.fork_rng(devices=[]):
            more = build_model(
                options_of(self.params), self.tokenizer.vocab_size + 1, self.params["num_mel_bins"]
            )
        return token_dims(model.state_dict(), more.state_dict())

    def train_cuts(self) -> "CutSet":
        """Return the cuts of ``--train-cuts``, or those of the corpus."""
        names = [name.strip() for name in self.finetune.train_cuts.split(",") if name.strip()]
        if not names:
            return super().train_cuts()
        first, *rest = [self.corpus.manifest(name) for name in names]
        for more in rest:
            first = first + more
        return first

    def valid_sets(self) -> Dict[str, "CutSet"]:
        """Return the corpus's validation cuts and those of ``--valid-cuts``, by name."""
        own = super().valid_sets()
        more = self.corpus.named_manifests(self.finetune.valid_cuts, "--valid-cuts")
        return {**{name or self.corpus.name: cuts for name, cuts in own.items()}, **more} if more else own
