#!/usr/bin/env bash
# Prepare waves_yesno (OpenSLR 1) for training.
set -eou pipefail

stage=0
stop_stage=5
dl_dir=$PWD/download
nj=2
data_dir=data
speed_perturb=1
on_the_fly_feats=0
vocab_size=9

help_message="Usage: ./prepare.sh [options]     (in egs/yesno/ASR)

  --dl-dir DIR           folder of waves_yesno.tar.gz, which is downloaded if missing (default: ./download)
  --data-dir DIR         folder for all output (default: data)
  --speed-perturb 0|1    also store training features at speeds 0.9 and 1.1 (default: 1)
  --on-the-fly-feats 0|1 store no features; then train with --on-the-fly-feats 1 (default: 0)
  --vocab-size N         number of BPE tokens (default: 9)
  --stage N              first stage (default: 0)
  --stop-stage N         last stage (default: 5)
  --nj N                 number of processes (default: 2)

Stages: 0 download  1 manifests  3 features  5 tokens and validation"

# shellcheck source=../../shared/prepare_lib.sh
. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"
yes_or_no speed_perturb on_the_fly_feats

manifests=$data_dir/manifests
fbank=$data_dir/fbank
lang=$data_dir/lang_bpe_$vocab_size
archive=$dl_dir/waves_yesno.tar.gz

if in_stage 0 "download"; then
  download_to "$archive" https://www.openslr.org/resources/1/waves_yesno.tar.gz
fi

if in_stage 1 "manifests"; then
  [ -d "$data_dir/waves_yesno" ] || unpack_to "$data_dir/waves_yesno" waves_yesno "$archive"
  "$python" local/prepare_yesno.py --corpus-dir "$data_dir/waves_yesno" --manifest-dir "$manifests"
fi

if in_stage 3 "features" && [ "$on_the_fly_feats" = 0 ]; then
  store_features yesno train,valid,test "$speed_perturb" --perturb-speed "$speed_perturb"
fi

if in_stage 5 "tokens and validation"; then
  mkdir -p "$lang"
  printf "%s\n" "YES NO" > "$lang/transcript_words.txt"
  make_tokens "$lang" "$lang/transcript_words.txt" "$vocab_size" --vocab-size "$vocab_size" --model-type bpe
  check_cuts yesno train,valid,test --bpe-model "$lang/bpe.model"
fi
finish
