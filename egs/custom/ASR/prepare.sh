#!/usr/bin/env bash
# Prepare your own recordings, listed in TSV files, for training.
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
max_unreadable=0.05
channel=first
empty_text=drop
noise_dir=
speed_perturb=0
on_the_fly_feats=0
feature_type=fbank
vocab_size=500
model_type=unigram

help_message="Usage: ./prepare.sh --train train.tsv --valid dev.tsv --test test.tsv [options]     (in egs/custom/ASR)

  --train FILE           training recordings: lines audio-path<TAB>transcript, with paths relative to the file's folder
  --valid FILE           validation recordings
  --test FILE            test recordings (optional)
  --normalize CASE       none (default), lower or upper case
  --on-bad-line WHAT     error (default) or skip: for lines without audio path or transcript
  --channel WHICH        of recordings with several: first (default), mix, loudest or a number from 0
  --empty-text WHAT      drop (default), or keep recordings without a transcript, such as noise; then train with
                         --empty-text keep, and the model learns to write nothing for them
  --max-unreadable SHARE accept this share of recordings that cannot be read (default: 0.05); they are left out
  --noise-dir DIR        folder of noise recordings (e.g. MUSAN) to mix into training utterances
  --speed-perturb 0|1    also store training features at speeds 0.9 and 1.1 (default: 0)
  --on-the-fly-feats 0|1 store no features; then train with --on-the-fly-feats 1 (default: 0)
  --feature-type TYPE    fbank (default) or log-mel; give training the same
  --vocab-size N         number of tokens, or the nearest number that the text allows (default: 500)
  --model-type TYPE      unigram (default), bpe or char
  --data-dir DIR         folder for all output (default: data)
  --stage N              first stage (default: 0)
  --stop-stage N         last stage (default: 5)
  --nj N                 number of processes (default: 2)

Stages: 1 manifests  2 noise manifests  3 features  4 noise features  5 tokens and validation"

# shellcheck source=../../shared/prepare_lib.sh
. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"
yes_or_no speed_perturb on_the_fly_feats

manifests=$data_dir/manifests
fbank=$data_dir/fbank
lang=$data_dir/lang_bpe
text=$data_dir/transcript_words.txt
parts=train,valid${test:+,test}
checked=$(cksum ${train:+"$train"} ${valid:+"$valid"} ${test:+"$test"} < /dev/null 2> /dev/null || true)
made="$normalize $on_bad_line $checked${channel#first}"
[ "$empty_text" = drop ] || made+=" $empty_text"

if in_stage 1 "manifests"; then
  [[ -n $train && -n $valid ]] || fail "give --train and --valid, TSV files with lines audio-path<TAB>transcript"
  if ! is_done "$manifests/.custom.done" "$made" "$manifests"/custom_cuts_*; then
    "$python" -m asr_core.bin.prepare_tsv --train "$train" --valid "$valid" ${test:+--test "$test"} --output-dir "$manifests" \
      --transcript "$text" --normalize "$normalize" --on-bad-line "$on_bad_line" --channel "$channel" \
      --max-unreadable "$max_unreadable" \
      --empty-text "$empty_text" --nj "$nj"
    mark_done "$manifests/.custom.done" "$made" "$manifests"/custom_left_out_*.txt
  fi
fi
if [ -f "$manifests/.custom.done" ]; then
  made=$(cat "$manifests/.custom.done") # later stages run without the TSV files
  parts=train,valid$([ ! -f "$manifests/custom_cuts_test.jsonl.gz" ] || echo ,test)
fi

# With what was left out the features depend on it, too: they are made anew when it is found.
missing=$(cat "$manifests"/custom_left_out_*.txt 2> /dev/null || true)
[ -z "$missing" ] || made="$made without $(cksum <<< "$missing")"

if in_stage 2 "noise manifests" && [ -n "$noise_dir" ]; then
  if ! is_done "$manifests/.musan.done" "$noise_dir" "$manifests/musan_cuts.jsonl.gz"; then
    "$python" -m asr_core.bin.prepare_noise --noise-dir "$noise_dir" --output "$manifests/musan_cuts.jsonl.gz" \
      --max-unreadable "$max_unreadable"
    mark_done "$manifests/.musan.done" "$noise_dir" "$manifests/musan_left_out.txt"
  fi
fi

if in_stage 3 "features" && [ "$on_the_fly_feats" = 0 ]; then
  store_features custom "$parts" "$made $speed_perturb $feature_type" --perturb-speed "$speed_perturb" --feature-type "$feature_type" \
    --max-unreadable "$max_unreadable"
fi

if in_stage 4 "noise features" && [ -n "$noise_dir" ]; then
  if [ "$on_the_fly_feats" = 0 ]; then
    noise_made="$noise_dir $feature_type"
    missing=$(cat "$manifests/musan_left_out.txt" 2> /dev/null || true)
    [ -z "$missing" ] || noise_made+=" without $(cksum <<< "$missing")"
    store_features musan "" "$noise_made" --feature-type "$feature_type" --max-unreadable "$max_unreadable"
  else
    log "  with --on-the-fly-feats 1, training reads the noise from $manifests/musan_cuts.jsonl.gz"
  fi
fi

if in_stage 5 "tokens and validation"; then
  [ -f "$text" ] || fail "no $text; run stage 1 first"
  make_tokens "$lang" "$text" "$made $model_type $vocab_size" --vocab-size "$vocab_size" --model-type "$model_type" \
    --fit-vocab 1 --keep-text 1
  check_cuts custom "$parts" --bpe-model "$lang/bpe.model" --empty-text "$empty_text"
fi
finish
