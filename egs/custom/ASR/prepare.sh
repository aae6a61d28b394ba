#!/usr/bin/env bash
# Prepares your own recordings, listed in TSV files, for training.
set -eou pipefail

stage=0
stop_stage=5
nj=2
train=
valid=
test=
data_dir=data
normalize=none
on_bad_line=error
noise_dir=
speed_perturb=0
on_the_fly_feats=0
feature_type=fbank
vocab_size=500
model_type=unigram

help_message="Usage: ./prepare.sh --train train.tsv --valid dev.tsv --test test.tsv [options]     (in egs/custom/ASR)

  --train FILE           training recordings: lines of audio-path<TAB>transcript; paths are relative to the file's folder
  --valid FILE           validation recordings
  --test FILE            test recordings (optional)
  --normalize CASE       none (default), lower or upper case
  --on-bad-line WHAT     error (default), or skip lines without audio path or transcript
  --noise-dir DIR        folder of noise recordings (e.g. MUSAN) to mix into training utterances
  --speed-perturb 0|1    store training features at speeds 0.9 and 1.1 too (default: 0)
  --on-the-fly-feats 0|1 store no features; train with --on-the-fly-feats 1 then (default: 0)
  --feature-type TYPE    fbank (default), or log-mel; train with the same
  --vocab-size N         number of tokens; where the text does not allow it, the nearest that it does (default: 500)
  --model-type TYPE      unigram (default), bpe or char
  --data-dir DIR         folder for everything that is made (default: data)
  --stage N              first stage (default: 0)
  --stop-stage N         last stage (default: 5)
  --nj N                 processes (default: 2)

Stages: 1 manifests  2 noise manifests  3 features  4 noise features  5 tokens and validation"

. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"
yes_or_no speed_perturb on_the_fly_feats

manifests=$data_dir/manifests
fbank=$data_dir/fbank
lang=$data_dir/lang_bpe
text=$data_dir/transcript_words.txt
parts=train,valid${test:+,test}
checked=$(cksum ${train:+"$train"} ${valid:+"$valid"} ${test:+"$test"} < /dev/null 2> /dev/null || true)
made="$normalize $on_bad_line $checked"

if in_stage 1 "manifests"; then
  [ -n "$train" ] && [ -n "$valid" ] || fail "give --train and --valid, TSV files with lines of audio-path<TAB>transcript"
  if ! is_done "$manifests/.custom.done" "$made" "$manifests"/custom_cuts_*; then
    "$python" -m asr_core.bin.prepare_tsv --train "$train" --valid "$valid" ${test:+--test "$test"} --output-dir "$manifests" \
      --transcript "$text" --normalize "$normalize" --on-bad-line "$on_bad_line" --nj "$nj"
    mark_done "$manifests/.custom.done" "$made"
  fi
fi
if [ -f "$manifests/.custom.done" ]; then
  made=$(cat "$manifests/.custom.done") # so that later stages can be run without the TSV files
  [ -f "$manifests/custom_cuts_test.jsonl.gz" ] && parts=train,valid,test || parts=train,valid
fi

if in_stage 2 "noise manifests" && [ -n "$noise_dir" ]; then
  if ! is_done "$manifests/.musan.done" "$noise_dir" "$manifests/musan_cuts.jsonl.gz"; then
    "$python" -m asr_core.bin.prepare_noise --noise-dir "$noise_dir" --output "$manifests/musan_cuts.jsonl.gz"
    mark_done "$manifests/.musan.done" "$noise_dir"
  fi
fi

if in_stage 3 "features" && [ "$on_the_fly_feats" = 0 ]; then
  store_features custom "$parts" "$made $speed_perturb $feature_type" --perturb-speed "$speed_perturb" --feature-type "$feature_type"
fi

if in_stage 4 "noise features" && [ -n "$noise_dir" ]; then
  if [ "$on_the_fly_feats" = 0 ]; then
    store_features musan "" "$noise_dir $feature_type" --feature-type "$feature_type"
  else
    log "  training with --on-the-fly-feats 1 takes the noise from $manifests/musan_cuts.jsonl.gz"
  fi
fi

if in_stage 5 "tokens and validation"; then
  [ -f "$text" ] || fail "no $text; run stage 1 first"
  make_tokens "$lang" "$text" "$made $model_type $vocab_size" --vocab-size "$vocab_size" --model-type "$model_type" \
    --fit-vocab 1 --keep-text 1
  check_cuts custom "$parts" --bpe-model "$lang/bpe.model"
fi
log "Done."
