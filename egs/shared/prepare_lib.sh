# Shell functions that every prepare.sh shares; source it after setting the defaults of all options and help_message:
#
#   stage=0; stop_stage=5; nj=2
#   . ../../shared/prepare_lib.sh
#   parse_options "$@"

log() {
  echo "$(date '+%Y-%m-%d %H:%M:%S') $*" >&2
}

fail() {
  echo "error: $*" >&2
  exit 1
}

# --name value or --name=value sets the variable name (dashes become underscores), if it was set before.
parse_options() {
  local option name value
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
        echo "$0: unexpected argument $option; options are given as --name value, --help lists them" >&2
        exit 2
        ;;
    esac
    if ! [[ $name =~ ^[a-z][a-z-]*$ ]] || ! grep -q -- "^ *--$name " <<< "$help_message"; then
      echo "$0: unknown option --$name; --help lists them all" >&2
      exit 2
    fi
    printf -v "${name//-/_}" '%s' "$value"
  done
  local number
  for number in stage stop_stage nj; do
    if ! [[ ${!number} =~ ^-?[0-9]+$ ]]; then
      echo "$0: --${number//_/-} must be a whole number, not '${!number}'" >&2
      exit 2
    fi
  done
  [ -f ./prepare.sh ] || fail "run this script in its own folder: cd $(dirname "$0") && ./prepare.sh"
  find_python
}

# Sets $python to the interpreter that has asr_core.
find_python() {
  python=${PYTHON:-python}
  command -v "$python" > /dev/null || python=python3
  command -v "$python" > /dev/null || fail "no python found; activate the virtual environment that has asr_core"
  "$python" -c "import asr_core" 2> /dev/null ||
    fail "$(command -v "$python") has no asr_core: activate its virtual environment, or run pip install -e . in the top folder"
}

# in_stage N TITLE: whether stage N is to run; says so.
in_stage() {
  [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] || return 1
  log "Stage $1: $2"
}

# is_done MARKER SETTINGS [PATH...]: whether a step was already done with these settings. Where it was not, what an earlier
# run with other settings left at PATH... is removed; what an interrupted run with the same settings left is kept.
is_done() {
  local marker=$1 settings=$2
  shift 2
  if [ -f "$marker" ] && [ "$(cat "$marker")" = "$settings" ]; then
    log "  done before ($marker)"
    return 0
  fi
  mkdir -p "$(dirname "$marker")"
  if ! [ -f "$marker.started" ] || [ "$(cat "$marker.started")" != "$settings" ]; then
    rm -f "$marker"
    [ $# -eq 0 ] || rm -rf -- "$@"
    echo "$settings" > "$marker.started"
  fi
  return 1
}

# mark_done MARKER SETTINGS: note that a step is complete; called last.
mark_done() {
  echo "$2" > "$1.started"
  mv "$1.started" "$1"
}

# download_to FILE URL: fetch an archive unless it is there.
download_to() {
  if [ -f "$1" ]; then
    log "  using $1"
  else
    "$python" -m asr_core.bin.download --url "$2" --output "$1"
  fi
}
