#!/usr/bin/env bash
# Measure contextual biasing: teach a model of digits the spelling of invented names, then let it find names that it
# has never heard, with and without a list of them.
set -eou pipefail

stage=0
stop_stage=4
nj=2
data_dir=data/names
exp_dir=exp-names
checkpoint=exp-synth/epoch-3.pt
digits=data/fbank/synth_cuts_test.jsonl.gz
num_epochs=4
scores="1 2 3 4"

help_message="Usage: ./run_names.sh [options]     (in egs/digits/ASR)

  --data-dir DIR     folder of the recordings with names (default: data/names)
  --exp-dir DIR      folder of the fine-tuned model (default: exp-names)
  --checkpoint FILE  model of synthesised digits to start from (default: exp-synth/epoch-3.pt, which ./run.sh trains)
  --digits FILE      recordings without names (default: data/fbank/synth_cuts_test.jsonl.gz)
  --num-epochs N     epochs of fine-tuning (default: 4)
  --scores LIST      values of --context-score (default: \"1 2 3 4\")
  --stage N          first stage (default: 0)
  --stop-stage N     last stage (default: 4)
  --nj N             processes for the preparation (default: 2)

Stages: 0 recordings  1 features and tokens  2 fine-tuning  3 decoding  4 table"

# shellcheck source=../../shared/prepare_lib.sh
. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"
on_the_fly_feats=0
manifests=$data_dir/manifests
fbank=$data_dir/fbank
lang=$data_dir/lang_bpe_100
counts="4000 100 300"

if in_stage 0 "recordings" && ! is_done "$manifests/.synth.done" "$counts" "$data_dir/synth" "$manifests"/synth_cuts_{train,valid,test}.jsonl.gz; then
  [ -f "$checkpoint" ] || fail "no $checkpoint: run ./run.sh, or give --checkpoint"
  "$python" local/synthesize_digits.py --names 1 --audio-dir "$data_dir/synth/audio" --manifest-dir "$manifests" --nj "$nj" \
    --num-train 4000 --num-valid 100 --num-test 300 --num-train-noise 0 --num-noise 0
  mark_done "$manifests/.synth.done" "$counts"
fi

if in_stage 1 "features and tokens"; then
  store_features synth train,valid,test "$counts"
  mkdir -p "$lang"
  "$python" -m asr_core.bin.write_transcripts "$manifests/synth_cuts_train.jsonl.gz" --output "$lang/transcript_words.txt"
  make_tokens "$lang" "$lang/transcript_words.txt" 100 --vocab-size 100 --model-type bpe
fi

if in_stage 2 "fine-tuning"; then
  "$python" finetune.py --finetune-ckpt "$checkpoint" --match-tokens 1 --manifest-dir "$fbank" --bpe-model "$lang/bpe.model" \
    --exp-dir "$exp_dir" --num-epochs "$num_epochs"
fi

# decode [OPTION...]: decode recordings with a name each, and the digits' own test set
decode() {
  "$python" decode.py --test-cuts "names=$fbank/synth_cuts_test.jsonl.gz,digits=$digits" --exp-dir "$exp_dir" --epoch "$num_epochs" --avg 1 \
    --decoding-method modified_beam_search "$@"
}

if in_stage 3 "decoding"; then
  decode
  for score in $scores; do
    for scaling in log linear; do
      decode --context-file "$manifests/names.txt" --context-score "$score" --context-scaling $scaling
    done
  done
fi

if in_stage 4 "table"; then
  "$python" local/names_table.py "$exp_dir" --names "$manifests/names.txt"
fi
