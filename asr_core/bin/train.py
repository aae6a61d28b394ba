"""Train a recognizer of a recipe."""

import dataclasses
import sys
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Sequence, Type, Union

from asr_core.cli.program import run_program
from asr_core.data.options import DataOptions
from asr_core.models.options import options_class
from asr_core.training.distributed.launch import RankInfo, launch
from asr_core.training.loss_options import LossOptions
from asr_core.training.optimizer_options import OptimizerOptions, refuse_unused
from asr_core.training.options import LoopOptions, SpeechOptions, fit_lengths
from asr_core.utils.options import AttributeDict, Parser, add_options, params_of, peek
from asr_core.utils.parsing import options_on

if TYPE_CHECKING:
    from asr_core.data.corpus import Corpus
    from asr_core.training.asr_recipe import AsrRecipe

    RecipeSource = Union[None, Type[AsrRecipe], Callable[[], Type[AsrRecipe]]]


def main(
    corpus: "Type[Corpus]",
    recipe: "RecipeSource" = None,
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[List[str]] = None,
    encoders: Sequence[str] = ("zipformer",),
    models: Optional[Mapping[str, Mapping[str, object]]] = None,
    options: Sequence[type] = (),
) -> None:
    """Train, and end the process.

    Its exit status is 0, 1 (a user's mistake), 2 (wrong options), 130 (Ctrl-C) or 143 (SIGTERM).

    Args:
      corpus: corpus of the cuts.
      recipe: a subclass of :class:`~asr_core.training.asr_recipe.AsrRecipe`, where model, loss,
        data or optimizer differ from the usual; or a function that imports and returns it when
        training starts, so that ``--help`` needs no torch.
      defaults: defaults of this recipe's options, by name; they take precedence over the corpus's.
      argv: the command line; by default the process' own.
      encoders: the kinds of encoder that ``--encoder`` offers, the usual one first; the options are
        those of the chosen one.
      models: instead of it, configurations by name, of which ``--model`` chooses; the first is the
        usual one. Each holds defaults that come before the recipe's, among them ``encoder``.
      options: option dataclasses of ``recipe``.
    """

    def body() -> None:
        known = recipe if isinstance(recipe, type) else None
        params = parse(corpus, known, defaults, argv, encoders, models, more_options=options)
        sys.exit(launch(_train, (corpus, recipe), params))

    run_program(body)


def _train(
    rank: RankInfo,
    params: AttributeDict,
    corpus: "Type[Corpus]",
    recipe: "RecipeSource",
) -> int:
    from asr_core.training.start import train_asr

    return train_asr(rank, params, corpus, recipe if recipe is None or isinstance(recipe, type) else recipe())


def parse(
    corpus: "Type[Corpus]",
    recipe: "Optional[Type[AsrRecipe]]" = None,
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[List[str]] = None,
    encoders: Sequence[str] = ("zipformer",),
    models: Optional[Mapping[str, Mapping[str, object]]] = None,
    *,
    action: str = "Train",
    more_options: Sequence[type] = (),
) -> AttributeDict:
    """Read the command line of a training; the first arguments are those of :func:`main`.

    Args:
      corpus, recipe, defaults, argv, encoders, models: see :func:`main`.
      action: first words of the description in ``--help``.
      more_options: option dataclasses besides those of every training.

    Raises:
      UserError: an option was given that has no effect together with the others.
    """
    parser = Parser(
        f"{action} a model on {corpus.name}. The same command again continues where a run was interrupted."
    )
    merged: Dict[str, object] = {**corpus.defaults, **(defaults or {})}
    if models:
        encoders = [_add_configurations(parser, merged, models, argv)]
    encoder = peek(argv, "encoder", encoders[0])
    model_options = options_class(encoder if encoder in encoders else encoders[0])
    options = [LoopOptions, SpeechOptions, LossOptions, OptimizerOptions, model_options, DataOptions]
    for cls in options:
        add_options(parser, cls, merged, choices={"encoder": list(encoders)})
    corpus.add_arguments(parser)
    for cls in more_options:
        add_options(parser, cls, merged)
    if recipe is not None:
        recipe.add_arguments(parser)
    ours = {field.name for cls in (*options, *more_options) for field in dataclasses.fields(cls)}
    _set_other_defaults(parser, merged, ours, encoders)
    params = params_of(parser.parse_args(argv))
    fit_lengths(params, options_on(argv, parser))
    names = [field.name for field in dataclasses.fields(OptimizerOptions)]
    refuse_unused(params, {name: parser.get_default(name) for name in names})
    return params


def _add_configurations(
    parser: Parser,
    merged: Dict[str, object],
    models: Mapping[str, Mapping[str, object]],
    argv: Optional[List[str]],
) -> str:
    """Add ``--model``, and the defaults of the configuration that it chooses to ``merged``.

    Returns:
      The kind of encoder of that configuration.
    """
    usual = next(iter(models))
    chosen = models.get(peek(argv, "model", usual), models[usual])
    merged.update(chosen)
    parser.add_argument(
        "--model",
        dest="configuration",
        choices=list(models),
        default=usual,
        help="Which configuration; with --help it shows the options of its encoder and their defaults.",
    )
    return str(chosen.get("encoder", "zipformer"))


def _set_other_defaults(
    parser: Parser, merged: Mapping[str, object], ours: "set[str]", encoders: Sequence[str]
) -> None:
    """Set the defaults of the options that corpus and recipe have added.

    Raises:
      ValueError: a default is of an option that does not exist, for no encoder of the recipe.
    """
    of_encoders = {f.name for name in encoders for f in dataclasses.fields(options_class(name))}
    unknown = sorted(set(merged) - parser.names - of_encoders)
    if unknown:
        raise ValueError(f"defaults of options that do not exist: {', '.join(unknown)}")
    parser.set_defaults(**{k: value for k, value in merged.items() if k not in ours | of_encoders})
