"""Export a trained model: pretrained.pt, or with --jit 1 TorchScript.

A recipe's export.py calls :func:`main`.
"""

from typing import Mapping, Optional, Sequence, Tuple

from asr_core.cli.decoding_arguments import add_model_options
from asr_core.cli.program import run_program
from asr_core.export.options import ExportOptions
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.utils.options import AttributeDict, Parser, add_options, params_of


def parse_export(
    description: str,
    options: type,
    defaults: Optional[Mapping[str, object]],
    argv: Optional[Sequence[str]],
) -> Tuple[AttributeDict, str]:
    """Parse the command line of a program that exports.

    Args:
      description: first line of ``--help``.
      options: the program's own options.
      defaults: defaults of the recipe's options, by name; that of ``tokens`` is a fallback where
        --exp-dir has none.
      argv: the command line, by default this process'.

    Returns:
      All options, and the recipe's tokens.
    """
    all_defaults = {"avg": 9, **(defaults or {})}
    fallback = str(all_defaults.pop("tokens", ""))
    parser = Parser(description)
    for cls in (CheckpointOptions, options):
        add_options(parser, cls, all_defaults)
    add_model_options(parser, all_defaults, argv)
    return params_of(parser.parse_args(argv)), fallback


def main(
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[Sequence[str]] = None,
    script_name: str = "",
) -> None:
    """Parse the command line and run.

    Args:
      defaults, argv: see :func:`parse_export`.
      script_name: name of the TorchScript file, if not the usual one.
    """
    params, fallback = parse_export((__doc__ or "").partition("\n")[0], ExportOptions, defaults, argv)

    def body() -> None:
        from asr_core.export.run import export_model

        export_model(params, fallback, script_name)

    run_program(body)


if __name__ == "__main__":
    main()
