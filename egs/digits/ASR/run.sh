#!/usr/bin/env bash
# Run all steps: prepare, train, decode, stream, export, transcribe.
set -eou pipefail

stage=0
stop_stage=6
nj=2
corpus=synth
dl_dir=$PWD/download
work_dir=$PWD
quick=0
num_epochs=
max_wer=

help_message="Usage: ./run.sh [options]     (in egs/digits/ASR)

  --corpus NAME     synth (default) or fsdd, see prepare.sh
  --dl-dir DIR      folder of the archive of fsdd, which is downloaded if missing (default: ./download)
  --work-dir DIR    folder for data and results (default: this one)
  --quick 0|1       two thirds of the data and a lower goal, as a check of all steps (default: 0)
  --num-epochs N    epochs of training (default: 3, with --quick 1: 4)
  --max-wer P       fail if a word error rate is above P percent (default: 5, with --quick 1: 30)
  --stage N         first stage (default: 0)
  --stop-stage N    last stage (default: 6)
  --nj N            processes for the preparation (default: 2)

Stages: 0 prepare  1 train  2 decode whole utterances  3 decode streaming  4 export  5 transcribe  6 summary"

# shellcheck source=../../shared/prepare_lib.sh
. "$(dirname "$0")/../../shared/prepare_lib.sh"
parse_options "$@"

prepare_args=(--corpus "$corpus" --nj "$nj" --num-train 3000)
if [ "$quick" = 1 ]; then
  # Not much less training: a model emits next to nothing for its first 500 steps or so.
  prepare_args+=(--num-train 2000 --num-valid 60 --num-test 100)
  num_epochs=${num_epochs:-4}
  max_wer=${max_wer:-30}
fi
num_epochs=${num_epochs:-3}
max_wer=${max_wer:-5}
[ "$corpus" = synth ] || prepare_args+=(--dl-dir "$dl_dir")
data=$work_dir/data
exp=$work_dir/exp-$corpus
chunk=(--chunk-size 16 --left-context-frames 64)
cuts=(--corpus "$corpus" --manifest-dir "$data/fbank")
model=(--exp-dir "$exp" --epoch "$num_epochs" --avg 1)
[ "$num_epochs" -gt 1 ] || model+=(--use-averaged-model 0) # which takes the epoch before, too

if in_stage 0 "prepare"; then
  ./prepare.sh --data-dir "$data" "${prepare_args[@]}"
fi

if in_stage 1 "train"; then
  "$python" train.py "${cuts[@]}" --bpe-model "$data/lang_bpe_34/bpe.model" --exp-dir "$exp" --num-epochs "$num_epochs" --use-ctc 1
fi

if in_stage 2 "decode whole utterances"; then
  for method in greedy_search modified_beam_search; do
    "$python" decode.py "${cuts[@]}" "${model[@]}" --decoding-method $method
  done
fi

if in_stage 3 "decode streaming, chunk by chunk"; then
  "$python" streaming_decode.py "${cuts[@]}" "${model[@]}" "${chunk[@]}"
fi

if in_stage 4 "export"; then
  "$python" export.py "${model[@]}"
  "$python" export.py "${model[@]}" --jit 1 "${chunk[@]}"
fi

if in_stage 5 "transcribe a recording with the exported streaming model"; then
  "$python" local/first_recordings.py "$data/manifests/${corpus}_cuts_test.jsonl.gz" --num 3 > "$exp/recordings.txt"
  readarray -t recordings < <(cut -f 1 "$exp/recordings.txt")
  "$python" transcribe.py --model "$exp/jit_script_chunk_16_left_64.pt" "${recordings[@]}"
  log "reference transcripts:"
  cut -f 2 "$exp/recordings.txt"
fi

if in_stage 6 "summary"; then
  "$python" -m asr_core.bin.list_results "$exp" --max-wer "$max_wer"
fi
