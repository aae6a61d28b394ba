"""The start of a run: from the options of a program to the training loop."""

import logging
import shutil
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Type

from asr_core.data.corpus import Corpus
from asr_core.data.features import describe_features
from asr_core.encoders.registry import subsampling_factor
from asr_core.models.options import options_of
from asr_core.text.pieces import KEY, difference
from asr_core.text.tokenizer import Tokenizer, format_tokens
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.distributed.launch import RankInfo
from asr_core.training.distributed.world import SingleProcess, run_in_group
from asr_core.training.finetune import FinetuneRecipe
from asr_core.training.lm_recipe import LmRecipe
from asr_core.training.loop import train
from asr_core.training.options import LoopOptions
from asr_core.training.setup import hold_exp_dir
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, write_text_atomic
from asr_core.utils.log import setup_logger
from asr_core.utils.options import AttributeDict, from_params


def train_asr(
    rank: RankInfo, params: AttributeDict, corpus: Type[Corpus], recipe: Optional[Type[AsrRecipe]] = None
) -> int:
    """Train a recognizer as one of the processes that train together; return the exit status.

    Args:
      rank: the place of this process among them.
      params: all options; what follows from them is added, for the checkpoints.
      corpus: corpus of the cuts.
      recipe: model, data, loss and optimizer; by default :class:`AsrRecipe`.
    """
    recipe_class = recipe or AsrRecipe

    def run(world: SingleProcess) -> int:
        recipe_class.complete(params)
        task = recipe_class(params, corpus(params), world.rank, world.size)
        params.update(
            vocab_size=task.tokenizer.vocab_size,
            blank_id=task.tokenizer.blank_id,
            unk_id=task.tokenizer.unk_id,
            feature_dim=params["num_mel_bins"],
            features=describe_features(params["sample_rate"], params["num_mel_bins"], params["feature_type"]),
            subsampling_factor=subsampling_factor(options_of(params)),
        )
        if world.is_main:
            _refuse_other_tokens(task)
            _record_options(params)
            _copy_tokenizer(task.tokenizer, Path(params["exp_dir"]))
        params[KEY] = task.tokenizer.pieces  # of checkpoints, not of the log
        return train(task, world)

    return _in_group(rank, params, run)


def finetune(
    rank: RankInfo,
    params: AttributeDict,
    corpus: Type[Corpus],
    recipe: Optional[Type[FinetuneRecipe]] = None,
) -> int:
    """Fine-tune a recognizer.

    Arguments are those of :func:`train_asr`; the usual recipe is :class:`FinetuneRecipe`.
    """
    return train_asr(rank, params, corpus, recipe or FinetuneRecipe)


def train_lm(rank: RankInfo, params: AttributeDict) -> int:
    """Train a language model as one of the processes that train together; return the exit status.

    Args:
      rank: the place of this process among them.
      params: all options.
    """

    def run(world: SingleProcess) -> int:
        if world.is_main:
            _record_options(params)
        return train(LmRecipe(params, world.rank, world.size), world)

    return _in_group(rank, params, run)


def _in_group(rank: RankInfo, params: AttributeDict, run: Callable[[SingleProcess], int]) -> int:
    """Join the other processes, open the log, and run."""
    opts = from_params(LoopOptions, params)
    exp_dir = Path(opts.exp_dir)

    def body(world: SingleProcess) -> int:
        try:
            setup_logger(exp_dir / "log" / "log-train", world.rank, world.size)
        except OSError as e:
            raise UserError(f"cannot write into --exp-dir {exp_dir}: {e.strerror or e}") from e
        with hold_exp_dir(params, world):
            return run(world)

    return run_in_group(rank, opts, body, params)


def _refuse_other_tokens(task: AsrRecipe) -> None:
    """Refuse a folder with checkpoints of other tokens."""
    exp_dir = Path(task.params["exp_dir"])
    tokens = exp_dir / "tokens.txt"
    if not (tokens.is_file() and list(exp_dir.glob("*.pt"))):
        return
    found = difference(
        task.tokenizer.pieces, Tokenizer.load(tokens, task.tokenizer.vocab_size).pieces, "the run's"
    )
    if found:
        raise UserError(
            f"{exp_dir} holds a run with other tokens than {task.options.bpe_model}: {found}; "
            "choose another --exp-dir"
        )


def _record_options(params: Mapping[str, Any]) -> None:
    write_text_atomic(Path(params["exp_dir"]) / "params.json", str(params) + "\n")
    logging.info("Options: %s", {name: params[name] for name in sorted(params)})


def _copy_tokenizer(tokenizer: Tokenizer, exp_dir: Path) -> None:
    """Copy the tokenizer to the checkpoints, where decoding and export look for it."""
    write_text_atomic(exp_dir / "tokens.txt", format_tokens(tokenizer.pieces))
    source, target = Path(tokenizer.path), exp_dir / "bpe.model"
    if source.suffix == ".model" and source.resolve() != target.resolve():
        with atomic_path(target) as tmp:
            shutil.copyfile(source, tmp)
