"""Training of a recipe: ``main(corpus=Digits, defaults={...})`` is all that its ``train.py`` needs."""

import dataclasses
import logging
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type

from asr_core.cli.program import run_program
from asr_core.data.options import DataOptions
from asr_core.encoders.registry import subsampling_factor
from asr_core.models.options import options_class, options_of
from asr_core.training.distributed.launch import RankInfo, rank_info_from_environment, spawn
from asr_core.training.optimizer_options import OptimizerOptions, refuse_unused
from asr_core.training.options import TrainOptions
from asr_core.training.recipe import Recipe
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params, params_of, peek

if TYPE_CHECKING:
    from asr_core.data.corpus import Corpus
    from asr_core.training.distributed.world import SingleProcess


def main(
    corpus: "Type[Corpus]",
    recipe: Optional[Type[Recipe]] = None,
    defaults: Optional[Dict[str, Any]] = None,
    argv: Optional[List[str]] = None,
    encoders: Sequence[str] = ("zipformer",),
    models: Optional[Mapping[str, Mapping[str, Any]]] = None,
) -> None:
    """Train; ends the process with status 0, 1 (a user's mistake), 2 (wrong options), 130 (Ctrl-C) or 143 (SIGTERM).

    Args:
      corpus: where the cuts come from.
      recipe: a subclass of Recipe where model, loss, data or optimizer differ from the usual.
      defaults: defaults of this recipe's options, by name; they come before the corpus' own.
      argv: the command line; by default the process' own.
      encoders: the kinds of encoder that ``--encoder`` offers, the usual one first. The options are those of the chosen one.
      models: in place of it, configurations by name, of which ``--model`` chooses; the first is the usual one. Each holds defaults
        that come before the recipe's, among them ``encoder``.
    """
    recipe = recipe or Recipe
    run_program(
        lambda: sys.exit(
            launch(
                _train, (corpus, recipe), _parse(corpus, recipe, defaults or {}, argv, encoders, models or {})
            )
        )
    )


def _parse(
    corpus: "Type[Corpus]",
    recipe: Type[Recipe],
    defaults: Dict[str, Any],
    argv: Optional[List[str]],
    encoders: Sequence[str],
    models: Mapping[str, Mapping[str, Any]],
) -> AttributeDict:
    parser = Parser(
        f"{recipe.purpose} on {corpus.name}. The same command again continues where a run was interrupted."
    )
    merged = {**corpus.defaults, **defaults}
    if models:
        usual = next(iter(models))
        chosen = models.get(peek(argv, "model", usual), models[usual])
        merged.update(chosen)
        encoders = [chosen.get("encoder", "zipformer")]
        help = "Which configuration; the options of its encoder, and their defaults, are in the --help beside it."
        parser.add_argument("--model", dest="configuration", choices=list(models), default=usual, help=help)
    encoder = peek(argv, "encoder", encoders[0])
    model_class = options_class(encoder if encoder in encoders else encoders[0])
    options = (TrainOptions, OptimizerOptions, model_class, DataOptions)
    for cls in options:
        add_options(parser, cls, merged)
    parser._option_string_actions["--encoder"].choices = list(encoders)
    corpus.add_arguments(parser)
    recipe.add_arguments(parser)
    known = {action.dest for action in parser._actions}
    of_others = {field.name for name in encoders for field in dataclasses.fields(options_class(name))}
    unknown = sorted(set(merged) - known - of_others)
    if unknown:
        raise ValueError(f"defaults of options that do not exist: {', '.join(unknown)}")
    ours = {field.name for cls in options for field in dataclasses.fields(cls)} | of_others
    parser.set_defaults(**{name: value for name, value in merged.items() if name not in ours})
    params = params_of(parser.parse_args(argv))
    refuse_unused(
        params, {field.name: parser.get_default(field.name) for field in dataclasses.fields(OptimizerOptions)}
    )
    return params


def launch(train: Callable[..., int], args: Tuple[Any, ...], params: AttributeDict) -> int:
    """Train in this process, as one of those that a launcher started, or in new processes; returns the exit status.

    Args:
      train: called in each of them as ``train(world, params, *args)``; returns an exit status. It can be pickled.
      args: its further arguments.
      params: all options.
    """
    opts = from_params(TrainOptions, params)
    opts.validate()
    rank_info = rank_info_from_environment(opts.world_size)
    if rank_info is None and opts.world_size > 1:
        return spawn(_run_rank, (train, args, params), opts.world_size, opts.master_port)
    return _run_rank(rank_info or RankInfo(), train, args, params)


def _run_rank(
    rank_info: RankInfo, train: Callable[..., int], args: Tuple[Any, ...], params: AttributeDict
) -> int:
    from asr_core.utils.log import setup_logger
    from asr_core.utils.runtime import setup_cpu

    params["world_size"] = rank_info.size
    opts = from_params(TrainOptions, params)
    setup_cpu(opts.num_threads, rank_info.local_size)
    from asr_core.training.distributed.world import run_in_group

    exp_dir = Path(opts.exp_dir)

    def body(world: "SingleProcess") -> int:
        logging.raiseExceptions = False  # a full disk must not print a traceback for each log line
        try:
            setup_logger(exp_dir / "log" / "log-train", world.rank, world.size)
        except OSError as e:
            raise UserError(f"cannot write into --exp-dir {exp_dir}: {e.strerror or e}") from e
        return train(world, params, *args)

    return run_in_group(rank_info, opts, body)


def _train(
    world: "SingleProcess", params: AttributeDict, corpus: "Type[Corpus]", recipe_class: Type[Recipe]
) -> int:
    recipe_class.complete(params)
    from asr_core.data.features import describe_features
    from asr_core.training.loop import Trainer

    recipe = recipe_class(params, corpus(params), world.rank, world.size)
    params.update(
        vocab_size=recipe.tokenizer.vocab_size,
        blank_id=recipe.tokenizer.blank_id,
        unk_id=recipe.tokenizer.unk_id,
        feature_dim=params["num_mel_bins"],
        features=describe_features(
            *(params[name] for name in ("sample_rate", "num_mel_bins", "feature_type"))
        ),
        subsampling_factor=subsampling_factor(options_of(params)),
    )
    if world.is_main:
        _keep_records(recipe, Path(params["exp_dir"]))
    from asr_core.decoding.validation_wer import GreedyErrors

    return Trainer(
        params, recipe, world, GreedyErrors(recipe.tokenizer.decode, recipe.corpus.normalize)
    ).run()


def _keep_records(recipe: Recipe, exp_dir: Path) -> None:
    """Write the options, and copy the tokenizer beside the checkpoints, where decoding and export look for it.

    Raises:
      UserError: the folder holds a run with other tokens.
    """
    from asr_core.text.tokenizer import Tokenizer, write_tokens
    from asr_core.utils.files import atomic_path, write_text_atomic

    tokens = exp_dir / "tokens.txt"
    if (
        tokens.is_file()
        and list(exp_dir.glob("*.pt"))
        and Tokenizer.load(tokens).pieces != recipe.tokenizer.pieces
    ):
        raise UserError(
            f"{exp_dir} holds a run with other tokens than {recipe.options.bpe_model}: choose another --exp-dir"
        )
    params = recipe.params
    write_text_atomic(exp_dir / "params.json", str(params) + "\n")
    logging.info("Options: %s", {name: params[name] for name in sorted(params)})
    write_text_atomic(tokens, write_tokens(recipe.tokenizer.pieces))
    source = Path(recipe.tokenizer.path)
    target = exp_dir / "bpe.model"
    if source.suffix == ".model" and source.resolve() != target.resolve():
        with atomic_path(target) as tmp:
            shutil.copyfile(source, tmp)
