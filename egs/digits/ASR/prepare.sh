#!/usr/bin/env bash
# Prepare connected digits, synthesised or recorded, for training.
set -eou pipefail

stage=0
stop_stage=5
dl_dir=$PWD/download
nj=2
corpus=synth
data_dir=data
num_train=3000
num_valid=
num_test=300
num_noise=
speed_perturb=0
on_the_fly_feats=0
vocab_size=34

help_message="Usage: ./prepare.sh [options]     (in egs/digits/ASR)

  --corpus NAME          synth: digits that this recipe synthesises, without a download (default)
                         fsdd: recordings, the Free Spoken Digit Dataset
  --dl-dir DIR           folder of free-spoken-digit-dataset-master.tar.gz, which is downloaded if missing
                         (default: ./download)
  --data-dir DIR         folder for all output (default: data)
  --num-train N          training utterances (default: 3000)
  --num-valid N          validation utterances (default: 150 for synth, 300 for fsdd)
  --num-test N           test utterances (default: 300)
  --num-noise N          test cuts without words, for synth (default: a fifth of --num-test); of the training cuts
                         3 % more have none
  --speed-perturb 0|1    also store training features at speeds 0.9 and 1.1 (default: 0)
  --on-the-fly-feats 0|1 store no features; then train with --on-the-fly-feats 1 (default: 0)
  --vocab-size N         number of BPE tokens (default: 34)
  --stage N              first stage (default: 0)
  --stop-stage N         last stage (default: 5)
  --nj N                 number of processes (default: 2)

Stages: 0 download  1 audio and manifests  3 features  5 tokens and validation"

# shellcheck source=../../shared/prepare_lib.sh
. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"
yes_or_no speed_perturb on_the_fly_feats

case $corpus in
  synth) num_valid=${num_valid:-150} ;;
  fsdd) num_valid=${num_valid:-300} ;;
  *) fail "unknown corpus '$corpus'; choose --corpus synth or --corpus fsdd" ;;
esac
for number in num_train num_test num_noise; do
  [[ ${!number:-0} =~ ^[0-9]+$ ]] || fail "--${number//_/-} must be a whole number, not '${!number}'"
done
num_noise=${num_noise:-$((num_test / 5))}
num_train_noise=$((num_train * 3 / 100))
parts=train,valid,test
[ "$corpus" = fsdd ] || [ "$num_noise" = 0 ] || parts+=,noise
manifests=$data_dir/manifests
fbank=$data_dir/fbank
lang=$data_dir/lang_bpe_$vocab_size
archive=$dl_dir/free-spoken-digit-dataset-master.tar.gz
readarray -t made_of < <(fbank=$manifests cuts_of "$corpus" "$parts")

if in_stage 0 "download" && [ "$corpus" = fsdd ]; then
  download_to "$archive" https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.tar.gz
fi

made="$num_train $num_valid $num_test"
[ "$corpus" = fsdd ] || made+=" $num_train_noise $num_noise"
if in_stage 1 "audio and manifests of $corpus" && ! is_done "$manifests/.$corpus.done" "$made" "$data_dir/$corpus" "${made_of[@]}"; then
  counts=(--num-train "$num_train" --num-valid "$num_valid" --num-test "$num_test")
  if [ "$corpus" = synth ]; then
    "$python" local/synthesize_digits.py --audio-dir "$data_dir/synth/audio" --manifest-dir "$manifests" "${counts[@]}" \
      --num-train-noise "$num_train_noise" --num-noise "$num_noise" --nj "$nj"
  else
    "$python" local/compose_fsdd.py --archive "$archive" --audio-dir "$data_dir/fsdd/audio" --manifest-dir "$manifests" "${counts[@]}"
  fi
  mark_done "$manifests/.$corpus.done" "$made"
fi

if in_stage 3 "features" && [ "$on_the_fly_feats" = 0 ]; then
  store_features "$corpus" "$parts" "$made $speed_perturb" --perturb-speed "$speed_perturb"
fi

if in_stage 5 "tokens and validation"; then
  # Both corpora have the same ten words, hence the same tokens.
  mkdir -p "$lang"
  printf "%s\n" "zero one two three four five six seven eight nine" > "$lang/transcript_words.txt"
  make_tokens "$lang" "$lang/transcript_words.txt" "$vocab_size" --vocab-size "$vocab_size" --model-type bpe
  check_cuts "$corpus" "$parts" --bpe-model "$lang/bpe.model" --empty-text keep
fi
finish
