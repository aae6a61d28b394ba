"""The task of fine-tuning: training that starts from the weights of another run, on other data."""

from typing import TYPE_CHECKING, Any, Dict, Mapping, MutableMapping

from torch import Tensor, nn

from asr_core.data.options import DataOptions
from asr_core.models.checkpoint import load_checkpoint_file, load_state, model_options, weights_of
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.finetune_options import FEATURE_OPTIONS, FinetuneOptions, starting_checkpoint
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of, flag, from_params, record_of

if TYPE_CHECKING:
    from lhotse import CutSet

    from asr_core.data.corpus import Corpus


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
        path = self.finetune.finetune_ckpt
        try:
            state = weights_of(load_checkpoint_file(str(path)))
            if not self.finetune.modules:
                self._check_vocabulary(state)
            load_state(model, state, self.finetune.modules)
        except UserError as e:
            raise UserError(f"--finetune-ckpt {path}: {e}") from e
        return model

    def _check_vocabulary(self, state: Mapping[str, Tensor]) -> None:
        """Refuse weights of a model with another number of tokens."""
        for name in ("decoder.embedding.weight", "ctc_output.1.weight"):
            if name in state and len(state[name]) != self.tokenizer.vocab_size:
                raise UserError(
                    f"it has {len(state[name])} tokens, {self.options.bpe_model} "
                    f"{self.tokenizer.vocab_size}: give the model's tokenizer with --bpe-model, or take "
                    "over the encoder alone with --init-modules encoder_embed,encoder"
                )

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
