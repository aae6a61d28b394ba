"""Inputs of all programs, tiny and valid, made by the programs themselves; and their valid lines."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Collection, List

from command_lines import Line, run
from made_up_corpus import write_corpus
from tiny_program import TINY

_TRAIN = """--manifest-dir {w}/fbank --bpe-model {w}/lang/bpe.model --num-epochs 1 --num-workers 0 --device cpu
    --num-threads 1 --max-duration 60 --drop-last 0 --bucketing-sampler 0 --tensorboard 0 --use-ctc 1 --valid-wer-cuts 2"""
_SIZES = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in TINY.items() if name != "causal")
_CKPT = "--exp-dir {w}/exp --epoch 1 --avg 1 --use-averaged-model 0"
_DECODE = f"{_CKPT} --manifest-dir {{w}}/fbank --test-cuts test={{w}}/fbank/tones_cuts_valid.jsonl.gz --bpe-model {{w}}/lang --max-duration 60 --chunk-size 16 --left-context-frames 64"
_LM = "--batch-size 20 --num-epochs 1 --embedding-dim 8 --hidden-dim 8 --num-layers 1 --device cpu --num-threads 1"

# What the programs import once they run.
PROGRAM_MODULES = (
    "asr_core.training.start",
    "asr_core.decoding.run_offline",
    "asr_core.decoding.run_streaming",
    "asr_core.decoding.output.reports",
    "asr_core.export.run",
    "asr_core.serving.transcription",
)
# The lines that make the inputs, in order, with {o} for the world itself.
STEPS = """
write_transcripts {w}/manifests/tones_cuts_train.jsonl.gz --output {w}/text.txt
train_tokenizer --lang-dir {w}/lang --transcript {w}/text.txt --vocab-size 12 --model-type char --fit-vocab 1
compute_fbank --src-dir {w}/manifests --output-dir {w}/fbank --prefix tones --parts train,valid --nj 1
prepare_lang_bpe --lang-dir {w}/lang --oov <UNK>
convert_transcript_words_to_tokens --lexicon {w}/lang/lexicon.txt --transcript {w}/text.txt --output {w}/tokens_text.txt
make_kn_lm --ngram-order 2 --text {w}/text.txt --lm {w}/lm/2gram.arpa
make_kn_lm --ngram-order 2 --text {w}/tokens_text.txt --lm {w}/lang/2gram.arpa
arpa_to_fst --arpa {w}/lm/2gram.arpa --symbols {w}/lang/words.txt --output {w}/lm/G_2_gram.fst.txt
arpa_to_fst --arpa {w}/lm/2gram.arpa --symbols {w}/lang/words.txt --output {w}/lm/G_4_gram.fst.txt
compile_lg --lang-dir {w}/lang --lm {w}/lm/G_2_gram.fst.txt
compile_hlg --lang-dir {w}/lang --lm {w}/lm/G_2_gram.fst.txt
prepare_lm_data --bpe-model {w}/lang/bpe.model --lm-data {w}/text.txt --lm-archive {w}/lm/data.pt --sorted-archive {w}/lm/sorted.pt
train_lm --lm-data {w}/lm/sorted.pt --lm-data-valid {w}/lm/sorted.pt --exp-dir {w}/rnn_lm --vocab-size 10 LM
prepare_noise --noise-dir {w}/audio --output {w}/manifests/musan_cuts.jsonl.gz --min-duration 0.1
train TRAIN SIZES --exp-dir {w}/exp --causal 1
export CKPT
export CKPT --jit 1 --chunk-size 16 --left-context-frames 64
jit_trace_export CKPT --chunk-size 16 --left-context-frames 64
decode DECODE --write-timestamps 1 --write-confidence 1
"""

# The lines that are fuzzed.
LINES = """
write_transcripts {w}/manifests/tones_cuts_train.jsonl.gz --output {o}/text.txt
train_tokenizer --lang-dir {o}/lang --transcript {w}/text.txt --vocab-size 12 --model-type char --fit-vocab 1
compute_fbank --src-dir {w}/manifests --output-dir {o}/fbank --prefix tones --parts valid --nj 1
prepare_tsv --train {w}/train.tsv --output-dir {o}/manifests --transcript {o}/text.txt --nj 1
prepare_noise --noise-dir {w}/audio --output {o}/noise.jsonl.gz
prepare_noise --recordings {w}/manifests/recordings.jsonl.gz --output {o}/noise.jsonl.gz
prepare_lang --lang-dir {w}/phones
prepare_lang_bpe --lang-dir {w}/lang-copy
combine_manifests {w}/fbank/tones_cuts_train.jsonl.gz {w}/fbank/tones_cuts_valid.jsonl.gz --output {o}/all.jsonl.gz --shuffle 1
describe_manifest {w}/fbank/tones_cuts_valid.jsonl.gz --bpe-model {w}/lang/bpe.model
validate_manifest {w}/fbank/tones_cuts_valid.jsonl.gz --bpe-model {w}/lang/bpe.model --read-data 1
write_shar --cuts {w}/fbank/tones_cuts_valid.jsonl.gz --shar-dir {o}/shar --nj 1
convert_transcript_words_to_tokens --lexicon {w}/lang/lexicon.txt --transcript {w}/text.txt --output {o}/tokens.txt
make_kn_lm --ngram-order 2 --text {w}/text.txt --lm {o}/2gram.arpa
arpa_to_fst --arpa {w}/lm/2gram.arpa --symbols {w}/lang/words.txt --output {o}/G.fst.txt
ngram_perplexity --lm {w}/lm/2gram.arpa --text {w}/text.txt
compile_lg --lang-dir {w}/lang-copy --lm {w}/lm/G_2_gram.fst.txt
compile_hlg --lang-dir {w}/lang-copy --lm-dir {w}/lm --lm G_2_gram
prepare_lm_data --bpe-model {w}/lang/bpe.model --lm-data {w}/text.txt --lm-archive {o}/data.pt --sorted-archive {o}/sorted.pt --statistics {o}/s.txt
train_lm --lm-data {w}/lm/sorted.pt --lm-data-valid {w}/lm/sorted.pt --exp-dir {o}/rnn_lm --vocab-size 10 LM
train_lm --lm-type transformer --lm-data {w}/lm/sorted.pt --lm-data-valid {w}/lm/sorted.pt --exp-dir {o}/t_lm --vocab-size 10 --batch-size 20 --num-epochs 1 --encoder-dim 8 --embedding-dim 8 --dim-feedforward 8 --nhead 2 --num-layers 1 --device cpu --num-threads 1
lm_perplexity --exp-dir {w}/rnn_lm --epoch 1 --lm-data {w}/lm/sorted.pt --device cpu
export_lm --exp-dir {w}/rnn_lm --epoch 1
train TRAIN SIZES --exp-dir {o}/exp
train TRAIN SIZES --exp-dir {o}/exp --on-the-fly-feats 1 --enable-musan 1 --noise-manifest {w}/manifests/musan_cuts.jsonl.gz
train TRAIN SIZES --exp-dir {o}/exp --shar-dir {w}/shar --use-mux 1 --mux-cuts train,{w}/fbank/tones_cuts_train.jsonl.gz:2
finetune TRAIN --finetune-ckpt {w}/exp/epoch-1.pt --exp-dir {o}/exp --train-cuts {w}/fbank/tones_cuts_train.jsonl.gz --valid-cuts v={w}/fbank/tones_cuts_valid.jsonl.gz
decode DECODE
decode DECODE --decoding-method modified_beam_search --context-file {w}/phrases.txt --write-timestamps 1
decode DECODE --decoding-method modified_beam_search_LODR --lm-exp-dir {w}/rnn_lm --lm-epoch 1 --lm-vocab-size 10 --lang-dir {w}/lang
decode DECODE --decoding-method alsd --word-ngram {w}/lm/2gram.arpa --lodr-ngram {w}/lang/2gram.arpa
decode DECODE --decoding-method fast_beam_search_nbest_LG --lang-dir {w}/lang
ctc_decode DECODE --decoding-method whole-lattice-rescoring --lang-dir {w}/lang --lm-dir {w}/lm
ctc_decode DECODE --decoding-method ctc-prefix-beam-search
streaming_decode DECODE --decoding-method modified_beam_search
streaming_decode DECODE --decoding-method fast_beam_search
export CKPT --tokens {w}/lang/tokens.txt
jit_trace_export CKPT --chunk-size 16 --left-context-frames 64
generate_averaged_model CKPT
transcribe {w}/audio/valid-0.wav --model {w}/exp/epoch-1.pt --tokens {w}/lang/tokens.txt --device cpu --num-threads 1
transcribe {w}/audio/valid-0.wav --model {w}/exp/jit_script_chunk_16_left_64.pt --tokens {w}/lang/tokens.txt --device cpu --num-threads 1 --method fast_beam_search
jit_trace_pretrained {w}/audio/valid-0.wav --encoder-model-filename {w}/exp/encoder_jit_trace.pt --decoder-model-filename {w}/exp/decoder_jit_trace.pt --joiner-model-filename {w}/exp/joiner_jit_trace.pt --tokens {w}/lang/tokens.txt --device cpu --num-threads 1
list_results {w}/exp
score --hyp {w}/recogs.txt --errs {o}/errs.txt --scores {o}/scores.txt
score --hyp {w}/recogs.txt --ref {w}/recogs.txt --speakers {w}/speakers.txt
report {w}/recogs.txt --cuts {w}/fbank/tones_cuts_valid.jsonl.gz --out {o}/report.html
score_timestamps {w}/manifests/aligned.jsonl.gz {w}/timestamps.jsonl
calibrate_confidence {w}/timestamps.jsonl --exp-dir {w}/calibrated --evaluate {w}/timestamps.jsonl
"""


def lines(text: str) -> List[Line]:
    """Read lines, a program and its arguments each, with abbreviations spelt out."""
    short = {"TRAIN": _TRAIN, "SIZES": _SIZES, "CKPT": _CKPT, "DECODE": _DECODE, "LM": _LM}
    found = []
    for line in text.strip().splitlines():
        words: List[str] = []
        for word in line.split():
            words += short[word].split() if word in short else [word]
        found.append(Line(words[0], tuple(words[1:])))
    return found


def preload() -> None:
    """Import what programs import, so that their forks need not."""
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    for module in (*PROGRAM_MODULES, *(f"asr_core.bin.{line.program}" for line in lines(LINES))):
        importlib.import_module(module)


def build(world: Path, scratch: Path, programs: Collection[str] = ()) -> None:
    """Make all inputs, or only those that ``programs`` make.

    Raises:
      AssertionError: a step failed.
    """
    write_corpus(world)
    for step in lines(STEPS):
        if programs and step.program not in programs:
            continue
        outcome = run(step, world, scratch, seconds=300)
        assert outcome.status == 0, f"{step}\n{outcome.err[-3000:]}"
        if step.program == "write_transcripts":
            _write_texts(world)
        if step.program == "train_tokenizer":
            _write_words(world)
    if not programs:
        _copy_results(world)


def _write_texts(world: Path) -> None:
    text = (world / "text.txt").read_text()
    audio = sorted((world / "audio").glob("train-*.wav"))
    (world / "train.tsv").write_text("".join(f"{p}\t{t}\n" for p, t in zip(audio, text.splitlines())))
    (world / "phrases.txt").write_text("ABC\nDEAF CAB\n")
    phones = world / "phones"
    phones.mkdir()
    (phones / "lexicon.txt").write_text("SIL SIL\n<UNK> SPN\nABC A B C\n")


def _write_words(world: Path) -> None:
    words = sorted(set((world / "text.txt").read_text().split()))
    symbols = ["<eps>", "<UNK>", *words, "#0", "<s>", "</s>"]
    (world / "lang" / "words.txt").write_text("".join(f"{w} {i}\n" for i, w in enumerate(symbols)))


def _copy_results(world: Path) -> None:
    from lhotse import CutSet, Recording, RecordingSet
    from lhotse.supervision import AlignmentItem

    shutil.copytree(world / "lang", world / "lang-copy")
    found = world / "exp" / "greedy_search"
    shutil.copy(next(found.glob("recogs-*.txt")), world / "recogs.txt")
    cuts = CutSet.from_file(world / "fbank" / "tones_cuts_valid.jsonl.gz").to_eager()
    (world / "speakers.txt").write_text("".join(f"{cut.id} me\n" for cut in cuts))
    audio = sorted((world / "audio").glob("*.wav"))
    RecordingSet.from_recordings(Recording.from_file(p) for p in audio).to_file(
        world / "manifests" / "recordings.jsonl.gz"
    )
    for cut in cuts:
        words, each = cut.supervisions[0].text.split(), cut.duration / len(cut.supervisions[0].text.split())
        items = [AlignmentItem(w, i * each, each) for i, w in enumerate(words)]
        cut.supervisions[0].alignment = {"word": items}
    CutSet.from_cuts(cuts).to_file(world / "manifests" / "aligned.jsonl.gz")
    records = [json.loads(line) for line in next(found.glob("timestamps-*.jsonl")).read_text().splitlines()]
    for record, cut in zip(records, sorted(cuts, key=lambda cut: cut.id)):
        items = cut.supervisions[0].alignment["word"]
        record["words"] = [
            dict(w=i.symbol, start=i.start, end=i.end, confidence=0.5 + 0.1 * n) for n, i in enumerate(items)
        ]
        record["text"] = cut.supervisions[0].text
    records[0]["words"][0]["w"] = "BED"
    (world / "timestamps.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (world / "shar").mkdir()
    (world / "calibrated").mkdir()
