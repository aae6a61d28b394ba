#!/usr/bin/env bash
# Prepare LibriSpeech (OpenSLR 12) or mini LibriSpeech (OpenSLR 31), and MUSAN (OpenSLR 17), for training.
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
lm_order=4

help_message="Usage: ./prepare.sh [options]     (in egs/librispeech/ASR)

  --stage N              first stage (default: 0)
  --stop-stage N         last stage (default: 5, the last that training needs)
  --dl-dir DIR           folder of LibriSpeech/ and musan/ or their archives, which are downloaded if missing
                         (default: ./download)
  --data-dir DIR         folder for all output (default: data)
  --nj N                 number of processes (default: one per core, at most 15)
  --full-libri 0|1       1: all 960 hours of training data; 0: train-clean-100 only (default: 1)
  --mini-libri 0|1       train-clean-5 and dev-clean-2 instead, for quick experiments (default: 0)
  --perturb-speed 0|1    also store training features at speeds 0.9 and 1.1 (default: 1)
  --on-the-fly-feats 0|1 store no features; then train with --on-the-fly-feats 1 (default: 0)
  --vocab-sizes \"N ...\"  sizes of the tokenizers to train (default: 500)
  --dask-scheduler ADDR  compute features on the Dask cluster with the scheduler at this address
  --shar-dir DIR         also write the training cuts to DIR as Lhotse Shar; then train with --shar-dir DIR
  --lm-order N           highest order of word n-gram models (default: 4); orders 3 and 4 are the downloaded models
                         after stage -1, all others are estimated from the training transcripts

Stages: -1 language models and lexicon (download)  0 download  1 manifests  2 noise manifests  3 features, shuffled training cuts,
        validation  4 noise features  5 tokens  6 lexica and graphs of words  7 n-gram language models of words and of tokens
        8 training data of neural language models  9 decoding graphs LG and HLG (needs: pip install kaldifst)"

# shellcheck source=../../shared/prepare_lib.sh
. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"
yes_or_no full_libri mini_libri perturb_speed on_the_fly_feats
vocab_sizes=${vocab_sizes//,/ }
[[ $vocab_sizes =~ ^\ *[1-9][0-9]*(\ +[1-9][0-9]*)*\ *$ ]] || fail "--vocab-sizes must be whole numbers, not '$vocab_sizes'"
[[ $lm_order =~ ^[1-9]$ ]] || fail "--lm-order must be from 1 to 9, not '$lm_order'"

manifests=$data_dir/manifests
fbank=$data_dir/fbank
corpus=$dl_dir/LibriSpeech
openslr=https://www.openslr.org/resources
test_parts=dev-clean,dev-other,test-clean,test-other
resource=12
if [ "$mini_libri" = 1 ]; then
  train_parts=train-clean-5
  train_part=$train_parts # the part that training reads
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
    # it is made again when recordings are found that it lacks, also if this script is stopped before that
    lacks=$fbank/.librispeech-shuffled-lacks
    missing=$(cat "$fbank"/librispeech_left_out_train*.txt 2> /dev/null || true)
    if [ -f "$lacks" ] && [ "$missing" != "$(cat "$lacks")" ]; then
      rm -f "$shuffled"
    fi
    if [ -n "$missing" ]; then echo "$missing" > "$lacks"; else rm -f "$lacks"; fi
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
        [ -f "${supervisions[-1]}" ] || fail "no ${supervisions[-1]}; run stage 1 first"
      done
      "$python" -m asr_core.bin.write_transcripts --output "$text" "${supervisions[@]}"
      mark_done "$lang/.text.done" "$train_parts"
    fi
    make_tokens "$lang" "$text" "$train_parts" --vocab-size "$vocab_size"
  done
fi

lang_phone=$data_dir/lang_phone

if in_stage 6 "lexica and graphs of words"; then
  lexicon=$dl_dir/lm/librispeech-lexicon.txt
  [ -f "$lexicon" ] || fail "no $lexicon; ./prepare.sh --stage -1 --stop-stage -1 downloads it"
  settings=$(cksum < "$lexicon")
  if ! is_done "$lang_phone/.done" "$settings" "$lang_phone"/{lexicon,words,tokens}.txt; then
    { printf '%s\n' '!SIL SIL' '<SPOKEN_NOISE> SPN' '<UNK> SPN' && cat "$lexicon"; } |
      awk 'NF { $1 = $1; print }' | LC_ALL=C sort -u > "$lang_phone/lexicon.txt"
    "$python" -m asr_core.bin.prepare_lang --lang-dir "$lang_phone"
    mark_done "$lang_phone/.done" "$settings"
  fi
  for vocab_size in $vocab_sizes; do
    lang=$data_dir/lang_bpe_$vocab_size
    [ -f "$lang/bpe.model" ] || fail "no $lang/bpe.model; run stage 5 first"
    settings=$(cksum "$lang_phone/words.txt" "$lang/bpe.model")
    if ! is_done "$lang/.lexicon.done" "$settings" "$lang"/{lexicon,words,L_disambig.fst}.txt; then
      cp "$lang_phone/words.txt" "$lang/words.txt"
      "$python" -m asr_core.bin.prepare_lang_bpe --lang-dir "$lang" --oov "<UNK>"
      mark_done "$lang/.lexicon.done" "$settings"
    fi
  done
fi

# make_grammar ARPA SYMBOLS OUTPUT: convert an n-gram model to a grammar in OpenFst text format.
make_grammar() {
  "$python" -m asr_core.bin.arpa_to_fst --arpa "$1" --symbols "$2" --output "$3"
}

if in_stage 7 "n-gram language models of words and of tokens"; then
  text=$data_dir/lang_bpe_${vocab_sizes%% *}/transcript_words.txt
  [[ -f $text && -f $lang_phone/words.txt ]] || fail "no $text or $lang_phone/words.txt; run stages 5 and 6 first"
  for order in $(seq $((lm_order < 3 ? lm_order : 3)) "$lm_order"); do
    arpa=$data_dir/lm/$order-gram.arpa
    case $order in
      3) given=$dl_dir/lm/3-gram.pruned.1e-7.arpa ;;
      *) given=$dl_dir/lm/$order-gram.arpa ;;
    esac
    [ ! -f "$given" ] || arpa=$given
    settings="$arpa $(cksum < "$lang_phone/words.txt") $(if [ "$arpa" = "$given" ]; then wc -c < "$arpa"; else cksum < "$text"; fi)"
    if ! is_done "$data_dir/lm/.$order-gram.done" "$settings" "$data_dir/lm/G_${order}_gram.fst.txt"; then
      if [ "$arpa" != "$given" ]; then
        log "  no $given: estimating $arpa from the training transcripts"
        "$python" -m asr_core.bin.make_kn_lm --ngram-order "$order" --text "$text" --lm "$arpa"
      fi
      make_grammar "$arpa" "$lang_phone/words.txt" "$data_dir/lm/G_${order}_gram.fst.txt"
      mark_done "$data_dir/lm/.$order-gram.done" "$settings"
    fi
  done
  for vocab_size in $vocab_sizes; do
    lang=$data_dir/lang_bpe_$vocab_size
    [ -f "$lang/lexicon.txt" ] || fail "no $lang/lexicon.txt; run stage 6 first"
    settings=$(cksum "$lang/lexicon.txt" "$lang/transcript_words.txt")
    if ! is_done "$lang/.ngrams.done" "$settings" "$lang"/{2,3,4,5}gram.{arpa,fst.txt}; then
      "$python" -m asr_core.bin.convert_transcript_words_to_tokens --lexicon "$lang/lexicon.txt" \
        --transcript "$lang/transcript_words.txt" --oov "<UNK>" --output "$lang/transcript_tokens.txt"
      for order in 2 3 4 5; do
        "$python" -m asr_core.bin.make_kn_lm --ngram-order $order --text "$lang/transcript_tokens.txt" --lm "$lang/${order}gram.arpa"
        make_grammar "$lang/${order}gram.arpa" "$lang/tokens.txt" "$lang/${order}gram.fst.txt"
      done
      mark_done "$lang/.ngrams.done" "$settings"
    fi
  done
fi

# lm_data LANG TEXT FOLDER SUFFIX: write TEXT in the tokens of LANG as training data, in its order and sorted by length.
lm_data() {
  local lang=$1 text=$2 folder=$3 suffix=$4 settings
  settings="$text $(wc -c < "$text") $(cksum < "$lang/bpe.model")"
  if ! is_done "$folder/.lm_data$suffix.done" "$settings" "$folder"/{,sorted_}"lm_data$suffix.pt"; then
    "$python" -m asr_core.bin.prepare_lm_data --bpe-model "$lang/bpe.model" --lm-data "$text" --lm-archive "$folder/lm_data$suffix.pt" \
      --sorted-archive "$folder/sorted_lm_data$suffix.pt" --statistics "$folder/statistics$suffix.txt"
    mark_done "$folder/.lm_data$suffix.done" "$settings"
  fi
}

if in_stage 8 "training data of neural language models"; then
  for vocab_size in $vocab_sizes; do
    lang=$data_dir/lang_bpe_$vocab_size
    folder=$data_dir/lm_training_bpe_$vocab_size
    [ -f "$lang/bpe.model" ] || fail "no $lang/bpe.model; run stage 5 first"
    text=$dl_dir/lm/librispeech-lm-norm.txt
    if ! [ -f "$text" ]; then
      log "  no $text: using the training transcripts"
      text=$lang/transcript_words.txt
    fi
    lm_data "$lang" "$text" "$folder" ""
    for set in valid test; do
      supervisions=()
      for part in ${test_parts//,/ }; do # dev parts are for validation
        [[ $part = dev-* && $set = valid || $part = test-* && $set = test ]] || continue
        supervisions+=("$manifests/librispeech_supervisions_$part.jsonl.gz")
        [ -f "${supervisions[-1]}" ] || fail "no ${supervisions[-1]}; run stage 1 first"
      done
      [ ${#supervisions[@]} -gt 0 ] || continue
      "$python" -m asr_core.bin.write_transcripts --output "$folder/$set.txt" "${supervisions[@]}"
      lm_data "$lang" "$folder/$set.txt" "$folder" "-$set"
    done
  done
fi

# prepared_graph NAME STAGE: print the path of NAME.fst.txt, which STAGE writes, or else NAME.pt, which icefall wrote.
prepared_graph() {
  local path
  for path in "$1.fst.txt" "$1.pt"; do
    [ ! -f "$path" ] || { echo "$path" && return; }
  done
  fail "no $1.fst.txt or .pt; run stage $2 first"
}

if in_stage 9 "decoding graphs"; then
  grammar=$(prepared_graph "$data_dir/lm/G_$((lm_order < 3 ? lm_order : 3))_gram" 7)
  langs=("$lang_phone")
  for vocab_size in $vocab_sizes; do
    langs+=("$data_dir/lang_bpe_$vocab_size")
  done
  for lang in "${langs[@]}"; do
    lexicon=$(prepared_graph "$lang/L_disambig" 6)
    settings="$(wc -c < "$grammar") $(cksum < "$lexicon")"
    for graph in LG HLG; do
      if [ -f "$lang/$graph.pt" ] && ! [ -f "$lang/$graph.fst.txt" ]; then
        log "  using $lang/$graph.pt"
      elif ! is_done "$lang/.$graph.done" "$settings" "$lang/$graph.fst.txt"; then
        "$python" -m "asr_core.bin.compile_${graph,,}" --lang-dir "$lang" --lm "$grammar"
        mark_done "$lang/.$graph.done" "$settings"
      fi
    done
  done
fi
finish
