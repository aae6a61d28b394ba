"""Print statistics of cut manifests: amounts, durations, words, tokens."""

from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument("manifests", nargs="+", help="cut manifests, .jsonl.gz")
    parser.add_argument("--bpe-model", default="", help="count the tokens of this tokenizer too")
    args = parser.parse_args(argv)

    def body() -> None:
        from asr_core.data.manifest import describe_cuts, iterate_cuts
        from asr_core.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(args.bpe_model) if args.bpe_model else None
        for path in args.manifests:
            print(f"{path}\n{describe_cuts(iterate_cuts(path), tokenizer)}\n")

    run_program(body)


if __name__ == "__main__":
    main()
