#!/usr/bin/env bash
# Measure how much language models help a weak model: decode digits that follow each other by rules, with each method
# that uses a language model.
set -eou pipefail

stage=0
stop_stage=6
nj=2
dl_dir=$PWD/download
data_dir=data
exp_dir=exp-weak
num_epochs=2

help_message="Usage: ./run_lm.sh [options]     (in egs/digits/ASR)

  --dl-dir DIR      folder of free-spoken-digit-dataset-master.tar.gz, which is downloaded if missing
                    (default: ./download)
  --data-dir DIR    folder for all output (default: data)
  --exp-dir DIR     folder of the acoustic model (default: exp-weak)
  --num-epochs N    epochs of its training; few keep it weak (default: 2)
  --stage N         first stage (default: 0)
  --stop-stage N    last stage (default: 6)
  --nj N            processes for the preparation (default: 2)

Stages: 0 recordings of random digits  1 recordings and texts of digits that follow each other by rules  2 lexicon, n-grams, graphs
        3 neural language models  4 a weak acoustic model  5 decoding  6 table
Graphs need kaldifst: pip install kaldifst"

# shellcheck source=../../shared/prepare_lib.sh
. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"
on_the_fly_feats=0
manifests=$data_dir/manifests
fbank=$data_dir/fbank
tokens=$data_dir/lang_bpe_34
lang=$data_dir/lang_chain
unigram=$data_dir/lang_chain_unigram # its graph has only the words
lm=$data_dir/lm_chain

if in_stage 0 "recordings of random digits"; then
  ./prepare.sh --corpus fsdd --dl-dir "$dl_dir" --data-dir "$data_dir" --nj "$nj"
fi

if in_stage 1 "recordings and texts of digits that follow each other by rules"; then
  if ! is_done "$manifests/.fsdd-chain.done" "300 300" "$data_dir/fsdd-chain" "$manifests"/fsdd-chain_cuts_{valid,test}.jsonl.gz; then
    "$python" local/compose_fsdd.py --archive "$dl_dir/free-spoken-digit-dataset-master.tar.gz" --strings chain --name fsdd-chain \
      --audio-dir "$data_dir/fsdd-chain/audio" --manifest-dir "$manifests" --num-train 0 --num-valid 300 --num-test 300
    mark_done "$manifests/.fsdd-chain.done" "300 300"
  fi
  store_features fsdd-chain valid,test "300 300"
  mkdir -p "$lm"
  "$python" local/write_strings.py --output "$lm/train.txt" --num 20000 --seed 20240201
  "$python" local/write_strings.py --output "$lm/valid.txt" --num 500 --seed 20240202
fi

if in_stage 2 "lexicon, n-grams, graphs"; then
  mkdir -p "$lang"
  cp "$tokens/bpe.model" "$lang/bpe.model"
  printf '%s\n' '<eps>' '<UNK>' eight five four nine one seven six three two zero '#0' '<s>' '</s>' | awk '{ print $1, NR - 1 }' \
    > "$lang/words.txt"
  "$python" -m asr_core.bin.prepare_lang_bpe --lang-dir "$lang" --oov "<UNK>"
  for order in 1 2; do
    "$python" -m asr_core.bin.make_kn_lm --ngram-order $order --text "$lm/train.txt" --lm "$lm/${order}gram.arpa"
    "$python" -m asr_core.bin.arpa_to_fst --arpa "$lm/${order}gram.arpa" --symbols "$lang/words.txt" --output "$lm/G_${order}_gram.fst.txt"
  done
  cp "$lm/G_2_gram.fst.txt" "$lm/G_4_gram.fst.txt" # the file that lattices are rescored with
  "$python" -m asr_core.bin.ngram_perplexity --lm "$lm/2gram.arpa" --text "$lm/valid.txt"
  "$python" -m asr_core.bin.compile_lg --lang-dir "$lang" --lm "$lm/G_2_gram.fst.txt"
  mkdir -p "$unigram"
  cp -r "$lang/." "$unigram"
  "$python" -m asr_core.bin.compile_hlg --lang-dir "$lang" --lm "$lm/G_2_gram.fst.txt"
  "$python" -m asr_core.bin.compile_hlg --lang-dir "$unigram" --lm "$lm/G_1_gram.fst.txt"
  # LODR subtracts what the acoustic model has learnt about token sequences: here, random digits
  "$python" local/write_strings.py --output "$lang/random.txt" --num 20000 --strings random
  "$python" -m asr_core.bin.convert_transcript_words_to_tokens --lexicon "$lang/lexicon.txt" --transcript "$lang/random.txt" \
    --oov "<UNK>" --output "$lang/random_tokens.txt"
  "$python" -m asr_core.bin.make_kn_lm --ngram-order 2 --text "$lang/random_tokens.txt" --lm "$lang/2gram.arpa"
fi

if in_stage 3 "neural language models"; then
  for set in train valid; do
    "$python" -m asr_core.bin.prepare_lm_data --bpe-model "$lang/bpe.model" --lm-data "$lm/$set.txt" --lm-archive "$lm/lm_data_$set.pt" \
      --sorted-archive "$lm/sorted_lm_data_$set.pt" --statistics "$lm/statistics_$set.txt"
  done
  common=(--lm-data "$lm/sorted_lm_data_train.pt" --lm-data-valid "$lm/sorted_lm_data_valid.pt" --vocab-size 34
    --batch-size 200 --num-epochs 6)
  "$python" -m asr_core.bin.train_lm --lm-type rnn "${common[@]}" --exp-dir "$lm/rnn" --embedding-dim 128 --hidden-dim 128 --num-layers 1
  "$python" -m asr_core.bin.train_lm --lm-type transformer "${common[@]}" --exp-dir "$lm/transformer" --encoder-dim 128 --embedding-dim 128 \
    --dim-feedforward 256 --nhead 4 --num-layers 2
fi

if in_stage 4 "a weak acoustic model"; then
  "$python" train.py --corpus fsdd --manifest-dir "$fbank" --bpe-model "$tokens/bpe.model" --use-ctc 1 --num-epochs "$num_epochs" \
    --exp-dir "$exp_dir"
fi

# decode METHOD [OPTION...]: decode with the last weights; an average would include those of a model that knew nothing yet
decode() {
  "$python" decode.py --corpus fsdd-chain --manifest-dir "$fbank" --exp-dir "$exp_dir" --epoch "$num_epochs" --avg 1 --use-averaged-model 0 \
    --lang-dir "$lang" --lm-dir "$lm" --decoding-method "$@"
}

if in_stage 5 "decoding"; then
  rnn=(--lm-type rnn --lm-exp-dir "$lm/rnn" --lm-epoch 6 --lm-vocab-size 34)
  transformer=(--lm-type transformer --lm-exp-dir "$lm/transformer" --lm-epoch 6 --lm-vocab-size 34)
  for method in greedy_search modified_beam_search fast_beam_search alsd ctc-greedy-search ctc-prefix-beam-search ctc-decoding; do
    decode "$method"
  done
  for scale in 0.2 0.5; do
    decode modified_beam_search_lm_shallow_fusion "${rnn[@]}" --lm-scale "$scale"
    decode modified_beam_search_lm_shallow_fusion "${transformer[@]}" --lm-scale "$scale"
    decode modified_beam_search_LODR "${rnn[@]}" --lm-scale "$scale" --ngram-lm-scale -0.1
    decode fast_beam_search_LG --ngram-lm-scale "$scale"
    decode fast_beam_search_nbest_LG --ngram-lm-scale "$scale"
    decode alsd --word-ngram "$lm/2gram.arpa" --word-ngram-scale "$scale" --word-score 0
    decode ctc-prefix-beam-search-shallow-fusion --word-ngram "$lm/2gram.arpa" --word-ngram-scale "$scale" --word-score 0
    decode ctc-prefix-beam-search-shallow-fusion "${rnn[@]}" --lm-scale "$scale"
    decode 1best --hlg-scale "$scale"
    decode nbest --hlg-scale "$scale"
  done
  decode modified_beam_search_lm_rescore "${rnn[@]}" --beam-size 8
  decode modified_beam_search_lm_rescore_LODR "${rnn[@]}" --beam-size 8
  decode nbest-rescoring --lang-dir "$unigram" --hlg-scale 0.4
  decode whole-lattice-rescoring --lang-dir "$unigram" --hlg-scale 0.4
fi

if in_stage 6 "table"; then
  "$python" local/lm_table.py "$exp_dir"
fi
