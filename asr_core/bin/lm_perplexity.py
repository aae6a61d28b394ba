"""Print the perplexity of a neural language model on a text, per token and per word."""

from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class LmPerplexityOptions:
    """Model and data."""

    lm_type: str = option("rnn", "kind of model", choices=("rnn", "transformer"))
    exp_dir: str = option("rnn_lm/exp", "folder of the checkpoints")
    epoch: int = option(30, "use epoch-<epoch>.pt")
    avg: int = option(1, "average the weights of so many epochs, up to --epoch")
    lm_data: str = option(
        "data/lm_training_bpe_500/sorted_lm_data-test.pt", "the text in tokens, as prepare_lm_data makes it"
    )
    batch_size: int = option(400, "sentences at once")
    device: str = option(
        "auto", "where to compute; auto takes CUDA if there is any", choices=("auto", "cpu", "cuda")
    )


def main(lm_type: str = "", argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; ``lm_type`` is the kind of model of a recipe's folder."""
    parser = Parser(__doc__)
    add_options(
        parser, LmPerplexityOptions, {"lm_type": lm_type, "exp_dir": f"{lm_type}_lm/exp"} if lm_type else {}
    )
    opts = from_params(LmPerplexityOptions, parser.parse_args(argv))
    run_program(lambda: _run(opts))


def _run(opts: LmPerplexityOptions) -> None:
    import torch

    from asr_core.decoding.scorers.neural_lm_loading import load_lm
    from asr_core.lm.archive import LmArchive, batches_of
    from asr_core.lm.neural import pad_tokens
    from asr_core.lm.options import LmOptions
    from asr_core.lm.perplexity import Perplexity, perplexity_of
    from asr_core.utils.device import pick_device
    from asr_core.utils.errors import UserError

    if opts.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {opts.batch_size}")
    device = pick_device(opts.device)
    lm = load_lm(
        LmOptions(lm_exp_dir=opts.exp_dir, lm_epoch=opts.epoch, lm_avg=opts.avg), None, device, opts.lm_type
    )
    data = LmArchive.load(opts.lm_data)
    if int(data.words.max()) >= lm.vocab_size:
        raise UserError(
            f"{opts.lm_data} has token {int(data.words.max())}, and the model knows {lm.vocab_size}: is it of other tokens?"
        )
    out = Perplexity(words=len(data.sentences))
    tokens = int(data.sentence_lengths.sum()) + data.num_sentences
    for picked in batches_of(data.sentence_lengths, opts.batch_size, int(data.sentence_lengths.max())):
        picked = torch.as_tensor(picked)
        x, y, lens = pad_tokens(data.tokens_of(picked), data.sentence_lengths[picked])
        with torch.inference_mode():
            out.log_prob -= float(lm(x.to(device), y.to(device), lens.to(device)).double().sum())
        out.sentences += len(picked)
    print(
        f"{out.sentences} sentences, {out.words} words, {tokens} tokens and ends; natural log probability {out.log_prob:.4f}; "
        f"perplexity {perplexity_of(out.log_prob, tokens):.4f} per token, {out.with_oovs:.4f} per word"
    )


if __name__ == "__main__":
    main()
