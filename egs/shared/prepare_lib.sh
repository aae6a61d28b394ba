# shellcheck shell=bash disable=SC2154
# Shell functions that all prepare.sh scripts share. First set help_message and the defaults of all options:
# the functions read them as global variables, which is why shellcheck sees no assignment here.
#
#   stage=0; stop_stage=5; nj=2
#   . "$(dirname "$0")/../../shared/prepare_lib.sh"
#   parse_options "$@"

log() {
  echo "$(date '+%Y-%m-%d %H:%M:%S') $*" >&2
}

fail() {
  echo "error: $*" >&2
  exit 1
}

# parse_options ARGUMENT...: set a variable for each option --name VALUE or --name=VALUE that help_message lists;
# dashes become underscores. An empty value is accepted only where the default is empty: of a folder it would mean /.
parse_options() {
  local option name value variable
  while [ $# -gt 0 ]; do
    option=$1
    shift
    case $option in
      --help | -h)
        echo "$help_message"
        exit 0
        ;;
      --?*=*)
        name=${option#--}
        value=${name#*=}
        name=${name%%=*}
        ;;
      --?*)
        name=${option#--}
        if [ $# -eq 0 ]; then
          echo "$0: option $option needs a value" >&2
          exit 2
        fi
        value=$1
        shift
        ;;
      *)
        echo "$0: unexpected argument $option; give options as --name value, see --help" >&2
        exit 2
        ;;
    esac
    name=${name//_/-}
    if ! [[ $name =~ ^[a-z][a-z-]*$ ]] || ! grep -q -- "^ *--$name " <<< "$help_message"; then
      echo "$0: unknown option --$name; see --help for all options" >&2
      exit 2
    fi
    variable=${name//-/_}
    if [ -z "$value" ] && [ -n "${!variable}" ]; then
      echo "$0: --$name must not be empty; leave it out for '${!variable}'" >&2
      exit 2
    fi
    printf -v "$variable" '%s' "$value"
  done
  local number
  for number in stage stop_stage nj; do
    if ! [[ ${!number} =~ ^-?[0-9]+$ ]]; then
      echo "$0: --${number//_/-} must be a whole number, not '${!number}'" >&2
      exit 2
    fi
  done
  [ "$nj" -ge 1 ] || fail "--nj must be at least 1, not $nj"
  [ "$stage" -le "$stop_stage" ] || fail "nothing to do: --stage $stage comes after --stop-stage $stop_stage"
  [ -f ./prepare.sh ] || fail "run this script in its own folder: cd $(dirname "$0") && ./prepare.sh"
  find_python
  [ -z "${data_dir:-}" ] || lock_folder "$data_dir"
  # before the export, so that it may outlive this script; a script that this one calls leaves it to this one
  [ -n "${ASR_CORE_SCRIPT:-}" ] || compile_kernels_meanwhile
  export ASR_CORE_SCRIPT=$$
}

# Start to compile the kernels where numba has none in its cache, at low priority. It needs no waiting for, does no
# harm when it is stopped, and may fail: what is missing is compiled when it is first used.
compile_kernels_meanwhile() {
  local caches=${NUMBA_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/numba}
  compgen -G "$package/ops/*/__pycache__/*.nbi" > /dev/null && return
  compgen -G "$caches/cpu_*/*.nbi" > /dev/null && return
  nice -n 19 "$python" -m asr_core.bin.compile_kernels < /dev/null > /dev/null 2>&1 &
  compiling=$!
  trap clean_up EXIT
  log "Kernels for this CPU are compiled in the background"
}

# finish: say that all selected stages are done. Kernels may go on being compiled.
finish() {
  compiling=
  log "Done."
}

# Run when the script ends, also by a signal or a failing step.
clean_up() {
  [ -z "${locked:-}" ] || ! grep -qs "\"pid\": $$," "$locked/.lock" || rm -f "$locked/.lock"
  [ -z "${compiling:-}" ] || kill "$compiling" 2> /dev/null || true
}

# Set $python to the interpreter that has asr_core, and $package to the folder of asr_core.
find_python() {
  python=${PYTHON:-python}
  command -v "$python" > /dev/null || python=python3
  command -v "$python" > /dev/null || fail "no python found; activate the virtual environment with asr_core"
  package=$("$python" -c "import asr_core; print(asr_core.__path__[0])" 2> /dev/null) ||
    fail "$(command -v "$python") cannot import asr_core: activate its virtual environment, or run pip install -e . in the repository"
}

# lock_folder FOLDER: let no other script work there until this one ends; fail if one does. Programs that this
# script starts end with it.
lock_folder() {
  "$python" -c 'import sys; from asr_core.utils.lock import main; main(*sys.argv[1:])' "$1" $$ || exit 1
  locked=$1
  trap clean_up EXIT
}

# in_stage N TITLE: succeed if stage N is selected, and log its title.
in_stage() {
  [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] || return 1
  log "Stage $1: $2"
}

# yes_or_no NAME...: turn the values of these options into 1 or 0.
yes_or_no() {
  local name
  for name; do
    case ${!name,,} in
      1 | true | yes | t | y) printf -v "$name" 1 ;;
      0 | false | no | f | n) printf -v "$name" 0 ;;
      *) fail "--${name//_/-} must be 1 or 0, not '${!name}'" ;;
    esac
  done
}

# is_done MARKER SETTINGS [PATH...]: succeed if a step has been completed with these settings and PATH... exist.
# An empty marker, as icefall's scripts leave it, counts as completed. Otherwise note that the step has started. If
# an earlier run had other settings, remove its PATH...; keep them after an interrupted run with the same
# settings, and also if there is no marker, because then they come from elsewhere. MARKER.made lists what was not
# there when the step started; nothing else is ever removed.
is_done() {
  local marker=$1 settings=$2 earlier=$2 path complete=1
  shift 2
  for path; do
    [ -e "$path" ] || complete=0
  done
  if [ $complete = 1 ] && [ -f "$marker" ] && { [ ! -s "$marker" ] || [ "$(cat "$marker")" = "$settings" ]; }; then
    log "  already done ($marker)"
    return 0
  fi
  mkdir -p "$(dirname "$marker")" 2> /dev/null || fail "cannot create the folder $(dirname "$marker")"
  [ ! -s "$marker" ] || earlier=$(cat "$marker")
  [ ! -f "$marker.started" ] || earlier=$(cat "$marker.started")
  if [ "$earlier" != "$settings" ]; then
    remove_made "$marker" "$@"
    rm -f "$marker"
  fi
  for path; do
    [ -e "$path" ] || echo "$path" >> "$marker.made"
  done
  echo "$settings" > "$marker.started"
  return 1
}

# remove_made MARKER PATH...: remove those PATH that exist; fail, without removing any, if a step did not make one.
remove_made() {
  local marker=$1 path line known
  shift
  for path; do
    [ -e "$path" ] || [ -L "$path" ] || continue
    known=0
    while read -r line; do
      # a line may be a pattern, of files that were not there yet
      # shellcheck disable=SC2053
      [ "$path" != "$line" ] && [[ $path != $line ]] || known=1
    done < <(cat "$marker.made" 2> /dev/null)
    [ $known = 1 ] || fail "$path was made with other settings, or not by this script: remove it yourself, or give another folder"
  done
  [ $# -eq 0 ] || rm -rf -- "$@"
}

# mark_done MARKER SETTINGS [LIST...]: note that a step is complete; call it last. It is not complete if a LIST of
# recordings that were left out exists: the next run tries them again.
mark_done() {
  local list
  for list in "${@:3}"; do
    if [ -f "$list" ]; then
      log "  $(wc -l < "$list") recordings were left out, see $list; the same command tries them again"
      return
    fi
  done
  echo "$2" > "$1.started"
  mv "$1.started" "$1"
}

# download_to FILE URL [OPTION...]: download a file unless it exists.
download_to() {
  local file=$1 url=$2
  shift 2
  if [ -f "$file" ]; then
    log "  using $file"
  else
    "$python" -m asr_core.bin.download --url "$url" --output "$file" "$@"
  fi
}

# unpack_to FOLDER MEMBER ARCHIVE: extract folder MEMBER of a tar archive to FOLDER, completely or not at all.
unpack_to() {
  local folder=$1 member=$2 archive=$3 work
  [ -f "$archive" ] || fail "no $archive; run stage 0, or give its folder with --dl-dir"
  mkdir -p "$(dirname "$folder")"
  work=$(dirname "$folder")/.unpacking-$(basename "$folder")
  rm -rf "$work" && mkdir "$work"
  if ! tar -xf "$archive" -C "$work" 2> "$work/.errors" || ! [ -d "$work/$member" ]; then
    log "$(head -n 1 "$work/.errors")"
    rm -rf "$work"
    fail "$archive is damaged or has no folder $member; remove it and restart from stage 0"
  fi
  mv "$work/$member" "$folder"
  rm -rf "$work"
}

# Steps that recipes share. They read $manifests, $fbank, $nj and $on_the_fly_feats.

# store_features PREFIX PARTS SETTINGS [OPTION...]: compute features of PARTS (separated by commas) from $manifests
# into $fbank. An empty PARTS selects the manifest PREFIX_cuts.jsonl.gz. Keep existing parts unless SETTINGS differ;
# try the recordings again that they lack.
store_features() {
  local prefix=$1 parts=$2 settings=$3 marker=$fbank/.$1.done part list complete=1 lists=()
  shift 3
  IFS=, read -ra list <<< "$parts"
  for part in "${list[@]:-}"; do
    [ -f "$fbank/${prefix}_cuts${part:+_$part}.jsonl.gz" ] || complete=0
    lists+=("$fbank/${prefix}_left_out${part:+_$part}.txt")
  done
  if ! is_done "$marker" "$settings" "$fbank/$prefix"_{cuts,feats}* || [ $complete = 0 ]; then
    "$python" -m asr_core.bin.compute_fbank --src-dir "$manifests" --output-dir "$fbank" --prefix "$prefix" --parts "$parts" \
      --nj "$nj" "$@"
    mark_done "$marker" "$settings" "${lists[@]}"
  fi
}

# make_tokens LANG TEXT SETTINGS [OPTION...]: train a tokenizer on the lines of TEXT and write it to the folder LANG.
# Keep a tokenizer without a marker: it comes from elsewhere, and models may depend on it.
make_tokens() {
  local lang=$1 text=$2 settings=$3
  shift 3
  if [ -f "$lang/bpe.model" ] && ! [ -e "$lang/.done" ] && ! [ -e "$lang/.done.started" ]; then
    log "  using $lang/bpe.model"
    return
  fi
  if ! is_done "$lang/.done" "$settings" "$lang"/{bpe.model,tokens.txt}; then
    "$python" -m asr_core.bin.train_tokenizer --lang-dir "$lang" --transcript "$text" "$@"
    mark_done "$lang/.done" "$settings"
  fi
}

# cuts_of PREFIX PARTS: print the paths of the manifests that training reads, one per line.
cuts_of() {
  local prefix=$1 part from=$fbank
  [ "$on_the_fly_feats" = 0 ] || from=$manifests
  for part in ${2//,/ }; do
    echo "$from/${prefix}_cuts_$part.jsonl.gz"
  done
}

# check_cuts PREFIX PARTS [OPTION...]: validate the manifests that training reads.
check_cuts() {
  local cuts
  readarray -t cuts < <(cuts_of "$1" "$2")
  shift 2
  "$python" -m asr_core.bin.validate_manifest "$@" "${cuts[@]}"
}
