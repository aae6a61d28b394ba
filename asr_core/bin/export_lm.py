"""Export a neural language model: pretrained.pt, or with --jit 1 TorchScript, cpu_jit.pt."""

from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.export.options import ExportLmOptions
from asr_core.utils.options import Parser, add_options, from_params


def main(lm_type: str = "", argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run.

    Args:
      lm_type: kind of model of a recipe's folder.
      argv: the command line, by default this process'.
    """
    parser = Parser(__doc__)
    defaults = {"lm_type": lm_type, "exp_dir": f"{lm_type}_lm/exp"} if lm_type else {}
    add_options(parser, ExportLmOptions, defaults)
    opts = from_params(ExportLmOptions, parser.parse_args(argv))

    def body() -> None:
        from asr_core.export.run import export_language_model

        export_language_model(opts)

    run_program(body)


if __name__ == "__main__":
    main()
