#!/usr/bin/env bash
# Prepares LibriSpeech (OpenSLR 12) or mini LibriSpeech (OpenSLR 31), and MUSAN (OpenSLR 17), for training.
set -eou pipefail

stage=0
stop_stage=5
dl_dir=$PWD/download
data_dir=data
nj=$(nproc 2> /dev/null || echo 2)
[ "$nj" -le 15 ] || nj=15
full_libri=1
mini_libri=0
perturb_speed=1
on_the_fly_feats=0
vocab_sizes=500
dask_scheduler=
shar_dir=

help_message="Usage: ./prepare.sh [options]     (in egs/librispeech/ASR)

  --stage N              first stage (default: 0)
  --stop-stage N         last stage (default: 5, which is all that training needs)
  --dl-dir DIR           folder with LibriSpeech/ and musan/, or with their archives, or to download them to (default: ./download)
  --data-dir DIR         folder for everything that is made (default: data)
  --nj N                 processes (default: one a core, at most 15)
  --full-libri 0|1       1: all 960 hours of training parts; 0: train-clean-100 alone (default: 1)
  --mini-libri 0|1       train-clean-5 and dev-clean-2 instead, a corpus to try things with (default: 0)
  --perturb-speed 0|1    store training features at speeds 0.9 and 1.1 too (default: 1)
  --on-the-fly-feats 0|1 store no features; train with --on-the-fly-feats 1 then (default: 0)
  --vocab-sizes \"N ...\"  sizes of the tokenizers to train (default: 500)
  --dask-scheduler ADDR  compute features on the Dask cluster whose scheduler is at this address
  --shar-dir DIR         also write the training cuts to DIR as Lhotse Shar; train with --shar-dir DIR then

Stages: -1 language models and lexicon (download)  0 download  1 manifests  2 noise manifests  3 features, shuffled training cuts,
        validation  4 noise features  5 tokens"

. ../../shared/prepare_lib.sh
parse_options "$@"
yes_or_no full_libri mini_libri perturb_speed on_the_fly_feats

manifests=$data_dir/manifests
fbank=$data_dir/fbank
corpus=$dl_dir/LibriSpeech
openslr=https://www.openslr.org/resources
test_parts=dev-clean,dev-other,test-clean,test-other
resource=12
if [ "$mini_libri" = 1 ]; then
  train_parts=train-clean-5
  train_part=$train_parts # the one that training reads
  test_parts=dev-clean-2
  resource=31
elif [ "$full_libri" = 1 ]; then
  train_parts=train-clean-100,train-clean-360,train-other-500
  train_part=train-all-shuf
else
  train_parts=train-clean-100
  train_part=$train_parts
fi
parts=$train_parts,$test_parts

if in_stage -1 "language models and lexicon"; then
  for file in 3-gram.pruned.1e-7.arpa 4-gram.arpa librispeech-lm-norm.txt; do
    download_to "$dl_dir/lm/$file" "$openslr/11/$file.gz" --gunzip 1
  done
  for file in librispeech-vocab.txt librispeech-lexicon.txt; do
    download_to "$dl_dir/lm/$file" "$openslr/11/$file"
  done
fi

if in_stage 0 "download"; then
  for part in ${parts//,/ }; do
    if [ -d "$corpus/$part" ]; then
      log "  using $corpus/$part"
    else
      download_to "$dl_dir/$part.tar.gz" "$openslr/$resource/$part.tar.gz"
      unpack_to "$corpus/$part" "LibriSpeech/$part" "$dl_dir/$part.tar.gz"
    fi
  done
  if [ -d "$dl_dir/musan" ]; then
    log "  using $dl_dir/musan"
  else
    download_to "$dl_dir/musan.tar.gz" "$openslr/17/musan.tar.gz"
    unpack_to "$dl_dir/musan" musan "$dl_dir/musan.tar.gz"
  fi
fi

if in_stage 1 "manifests"; then
  "$python" -m asr_core.bin.prepare_manifests --corpus librispeech --corpus-dir "$corpus" --output-dir "$manifests" \
    --parts "$parts" --nj "$nj"
  touch "$manifests/.librispeech.done"
fi

if in_stage 2 "noise manifests"; then
  "$python" -m asr_core.bin.prepare_manifests --corpus musan --corpus-dir "$dl_dir/musan" --output-dir "$manifests" \
    --parts music,speech,noise --nj "$nj"
  touch "$manifests/.musan.done"
fi

if in_stage 3 "features, shuffled training cuts, validation"; then
  if [ "$on_the_fly_feats" = 0 ]; then
    shuffled=$fbank/librispeech_cuts_train-all-shuf.jsonl.gz
    store_features librispeech "$parts" "perturb_speed=$perturb_speed" --perturb-speed "$perturb_speed" \
      --dask-scheduler "$dask_scheduler"
  else
    shuffled=$manifests/librispeech_cuts_train-all-shuf.jsonl.gz
  fi
  if [ "$train_part" = train-all-shuf ] && ! [ -f "$shuffled" ]; then
    readarray -t train_cuts < <(cuts_of librispeech "$train_parts")
    "$python" -m asr_core.bin.combine_manifests --shuffle 1 --output "$shuffled" "${train_cuts[@]}"
  fi
  readarray -t all_cuts < <(cuts_of librispeech "$parts")
  validated=$(dirname "$shuffled")/.librispeech-validated.done
  if ! is_done "$validated" "$(cksum "${all_cuts[@]}" | cksum)"; then
    check_cuts librispeech "$parts"
    mark_done "$validated" "$(cksum "${all_cuts[@]}" | cksum)"
  fi
  if [ -n "$shar_dir" ]; then
    "$python" -m asr_core.bin.write_shar --cuts "$(cuts_of librispeech "$train_part")" --shar-dir "$shar_dir/$train_part" \
      --nj "$nj"
  fi
fi

if in_stage 4 "noise features"; then
  if ! [ -f "$manifests/musan_cuts.jsonl.gz" ] && ! [ -f "$fbank/musan_cuts.jsonl.gz" ]; then
    recordings=$manifests/musan_recordings
    "$python" -m asr_core.bin.prepare_noise --keep-short 0 --output "$manifests/musan_cuts.jsonl.gz" \
      --recordings "${recordings}_music.jsonl.gz,${recordings}_speech.jsonl.gz,${recordings}_noise.jsonl.gz"
  fi
  if [ "$on_the_fly_feats" = 0 ]; then
    store_features musan "" "windows of 10 s" --dask-scheduler "$dask_scheduler"
  fi
fi

if in_stage 5 "tokens"; then
  for vocab_size in $vocab_sizes; do
    lang=$data_dir/lang_bpe_$vocab_size
    text=$lang/transcript_words.txt
    if ! is_done "$lang/.text.done" "$train_parts" "$text"; then
      supervisions=()
      for part in ${train_parts//,/ }; do
        supervisions+=("$manifests/librispeech_supervisions_$part.jsonl.gz")
      done
      "$python" -m asr_core.bin.write_transcripts --output "$text" "${supervisions[@]}"
      mark_done "$lang/.text.done" "$train_parts"
    fi
    make_tokens "$lang" "$text" "$train_parts" --vocab-size "$vocab_size"
  done
fi
log "Done."
