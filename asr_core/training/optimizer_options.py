"""Options of optimizers and schedules; light, so that ``--help`` needs no torch."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, List, Mapping, NamedTuple, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import flag, from_params, option

ADAM = ("adam", "adamw")
RISING = ("eden", "eden2", "noam", "hold")  # schedules that warm up to --base-lr
KINDS = ("const", "linear", "loglinear")

# Options that have an effect only where another one has one of certain values.
BELONGS = {
    "clipping_scale": ("optim", ("scaled_adam",)),
    "adam_betas": ("optim", ADAM),
    "adam_eps": ("optim", ADAM),
    "l2": ("optim", ("adam",)),
    "weight_decay": ("optim", ("adamw",)),
    "no_decay_regex": ("optim", ADAM),
    "gradient_mean": ("optim", ADAM),
    "clip_grad_norm": ("optim", ADAM),
    "base_lr": ("schedule", RISING),
    "lr_batches": ("schedule", ("eden", "eden2")),
    "lr_epochs": ("schedule", ("eden",)),
    "warmup_batches": ("schedule", RISING),
    "warmup_start": ("schedule", ("eden", "eden2", "hold")),
    "noam_offset": ("schedule", ("noam",)),
    "noam_max_lr": ("schedule", ("noam",)),
    "hold_batches": ("schedule", ("hold",)),
    "decay_batches": ("schedule", ("hold",)),
    "decay_to": ("schedule", ("hold",)),
    "decay_shape": ("schedule", ("hold",)),
    "decay_power": ("decay_shape", ("polynomial",)),
    "lr_pieces": ("schedule", ("piecewise",)),
    "lr_unit": ("schedule", ("piecewise",)),
    "epoch_split": ("lr_unit", ("epoch",)),
}


class Piece(NamedTuple):
    """A piece of a piecewise schedule.

    Attributes:
      units: its length.
      lr: the learning rate at its end.
      kind: how the rate gets there from the end of the piece before: one of ``KINDS``.
    """

    units: int
    lr: float
    kind: str


@dataclass
class OptimizerOptions:
    """Optimizer and learning-rate schedule."""

    optim: str = option(
        "scaled_adam",
        "scaled_adam moves parameters in proportion to their sizes; adam and adamw move all alike",
        choices=("scaled_adam", *ADAM),
        aliases=("--optimizer",),
    )
    base_lr: float = option(
        0.045,
        "highest learning rate, before the schedule's factors (eden, eden2, noam, hold); relative to sizes "
        "with scaled_adam",
        above=0,
    )
    clipping_scale: float = option(
        2.0, "scaled_adam: clip gradients at this multiple of their median norm; 0: never", at_least=0
    )
    adam_betas: str = option(
        "0.9,0.999", "adam, adamw: decay of the averages of gradients and of their squares"
    )
    adam_eps: float = option(1.0e-8, "adam, adamw: added to the denominator", above=0)
    l2: float = option(
        0.0,
        "adam: this times the weights is added to the gradient, after clipping (coupled decay)",
        at_least=0,
    )
    weight_decay: float = option(
        0.01,
        "adamw: in each step weights shrink by this times the learning rate (decoupled decay)",
        at_least=0,
    )
    no_decay_regex: str = option(
        r"(.*\.)?(bias\w*|\w*scale|\w*norm\w*(\.\d+)?\.\w+|feed_forward\d\.0\.weight)",
        "adam, adamw: parameters without --l2 and --weight-decay, by a regular expression for their whole "
        "names",
    )
    gradient_mean: str = option(
        "utterances",
        "adam, adamw: divide a step's gradient by its number of these",
        choices=("utterances", "frames", "none"),
    )
    clip_grad_norm: float = option(
        0.0, "adam, adamw: scale gradients down to this norm of all together; 0: never", at_least=0
    )
    schedule: str = option(
        "eden",
        "course of the learning rate; docs/training.md has the formulas",
        choices=("eden", "eden2", "noam", "hold", "piecewise"),
    )
    lr_batches: float = option(
        7500.0, "eden, eden2: batches after which the learning rate falls noticeably", above=0
    )
    lr_epochs: float = option(3.5, "eden: epochs after which the learning rate falls noticeably", above=0)
    warmup_batches: float = option(
        500.0,
        "eden, eden2, noam, hold: batches over which the learning rate rises at the start",
        at_least=0,
    )
    warmup_start: float = option(
        0.1, "eden, eden2, hold: factor on the learning rate at the first batch", at_least=0
    )
    noam_offset: float = option(0.0, "noam: added to the count of batches", at_least=0)
    noam_max_lr: float = option(
        0.0, "noam: the rate never exceeds this; 0: no limit but --base-lr", at_least=0
    )
    hold_batches: int = option(0, "hold: batches at --base-lr after the rise", at_least=0)
    decay_batches: int = option(
        0, "hold: batches over which the rate falls afterwards; 0: it never does", at_least=0
    )
    decay_to: float = option(0.01, "hold: share of --base-lr that is left at the end", at_least=0)
    decay_shape: str = option("exponential", "hold: how it falls", choices=("exponential", "polynomial"))
    decay_power: float = option(1.0, "hold with --decay-shape polynomial: 1 is a straight line", above=0)
    lr_pieces: str = option(
        "",
        "piecewise: UNITS:RATE[:KIND], separated by commas; a piece ends at its rate; kinds are "
        f"{', '.join(KINDS)}, by default const",
    )
    lr_unit: str = option("batch", "piecewise: what units are", choices=("batch", "epoch"))
    epoch_split: int = option(
        1,
        "piecewise with --lr-unit epoch: an epoch has this many units of about equally much audio",
        at_least=1,
    )
    ema_decay: float = option(
        0.0,
        "keep an exponential average of the weights with this decay per batch, e.g. 0.9999; 0: none",
        at_least=0,
        below=1,
    )
    valid_with_ema: bool = option(
        False, "measure validation losses and word errors on that average, instead of the weights"
    )

    def validate(self) -> None:
        """Refuse values that contradict each other, and malformed ones.

        Raises:
          UserError: naming the option and what it may be.
        """
        if self.valid_with_ema and not self.ema_decay:
            raise UserError("--valid-with-ema 1 needs --ema-decay, e.g. 0.9999")
        if self.schedule == "noam" and self.warmup_batches < 1:
            raise UserError(
                f"--schedule noam rises over --warmup-batches, at least 1, got {self.warmup_batches}"
            )
        if self.decay_to == 0 and self.decay_shape == "exponential":
            raise UserError("--decay-to 0 is never reached exponentially: give --decay-shape polynomial")
        self.betas()
        if self.schedule == "piecewise":
            self.pieces()
        try:
            re.compile(self.no_decay_regex)
        except re.error as e:
            raise UserError(f"--no-decay-regex {self.no_decay_regex!r} is no regular expression: {e}") from e

    def betas(self) -> Tuple[float, float]:
        """Return ``adam_betas`` as numbers.

        Raises:
          UserError: they are not two numbers, or out of range.
        """
        try:
            first, second = (float(part) for part in self.adam_betas.split(","))
        except ValueError:
            raise UserError(
                f"--adam-betas {self.adam_betas!r} must be two numbers with a comma between them, "
                "e.g. 0.9,0.98"
            ) from None
        if not (0 <= first < 1 and 0 <= second < 1):
            raise UserError(f"--adam-betas {self.adam_betas} must be at least 0 and below 1")
        return first, second

    def pieces(self) -> List[Piece]:
        """Return the pieces that ``lr_pieces`` describes.

        Raises:
          UserError: there are no pieces, or one is malformed.
        """
        found: List[Piece] = []
        for text in self.lr_pieces.split(",") if self.lr_pieces else []:
            try:
                units, lr, kind = text.split(":") if text.count(":") == 2 else (*text.split(":"), "const")
                piece = Piece(int(units), float(lr), kind)
            except (TypeError, ValueError):
                raise UserError(
                    f"--lr-pieces: {text!r} is not of the form UNITS:RATE or UNITS:RATE:KIND, "
                    "e.g. 9:5e-4:linear"
                ) from None
            if piece.kind not in KINDS:
                raise UserError(f"--lr-pieces: {text!r} has an unknown kind; there are {', '.join(KINDS)}")
            if piece.units < 1 or not piece.lr >= 0:
                raise UserError(f"--lr-pieces: {text!r} must have at least 1 unit, and a rate of at least 0")
            before = found[-1].lr if found else 0.0
            if piece.kind == "loglinear" and not (piece.lr > 0 and before > 0):
                raise UserError(f"--lr-pieces: {text!r} can only go from a rate above 0 to another one")
            found.append(piece)
        if not any(piece.lr > 0 for piece in found):
            raise UserError(
                "--schedule piecewise needs --lr-pieces with a rate above 0, "
                "e.g. 1:2e-4,18:5e-4,181:1e-5:loglinear"
            )
        return found

    def peak_lr(self) -> float:
        """Return the highest rate of the schedule."""
        return max(piece.lr for piece in self.pieces()) if self.schedule == "piecewise" else self.base_lr


def refuse_unused(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse options that were given but have no effect together with the others.

    Args:
      params: all options.
      defaults: their values where the user gives none.

    Raises:
      UserError: naming the option, and the one it belongs to.
    """
    opts = from_params(OptimizerOptions, params)
    for field in dataclasses.fields(opts):
        chooser, values = BELONGS.get(field.name, (field.name, (getattr(opts, field.name),)))
        chosen = getattr(opts, chooser)
        if chosen not in values and getattr(opts, field.name) != defaults[field.name]:
            raise UserError(
                f"{_flag(field.name)} is an option of {_flag(chooser)} {' or '.join(values)}, "
                f"and this is {chosen}: leave it out"
            )
    # Rates of ScaledAdam and Adam differ by a factor of about 50: one's default ruins the other.
    scaled = opts.optim == "scaled_adam"
    if (
        opts.schedule != "piecewise"
        and scaled != (defaults["optim"] == "scaled_adam")
        and opts.base_lr == defaults["base_lr"]
    ):
        why = "relative to the sizes of the parameters, about 0.045" if scaled else "absolute, about 0.001"
        raise UserError(f"--optimizer {opts.optim} needs a --base-lr of its own: it is {why}")


def _flag(name: str) -> str:
    return "--optimizer" if name == "optim" else flag(name)  # as the docs write it
