# What tpu_vm.sh, xpk.sh and slurm.sh share; they source it.
#
# A script sets `dry_run=false` and a variable for each of its flags, and has a
# function `help_COMMAND` for each of its commands.

# The pipeline's exit status after SIGTERM: it has saved, and is to be resumed.
# The number is that of gr2_jax/train/preemption.py.
readonly preempted_status=75

# Arguments behind `--`, for the pipeline, and the workdir among them.
pipeline=()
workdir=''

# Ends with a message that names the thing, its value and the remedy.
fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# Prints words so that a shell reads them back as they are.
quote() {
  local word quoted=() simple='^[A-Za-z0-9_./:=,@%+~-]+$'
  for word in "$@"; do
    if [[ ! $word =~ $simple ]]; then
      word=\'${word//\'/\'\\\'\'}\'
    fi
    quoted+=("$word")
  done
  echo "${quoted[*]}"
}

# Runs a command and says so; a dry run prints it and does no more.
run() {
  if [ "$dry_run" = true ]; then
    quote "$@"
  else
    quote "$@" >&2
    "$@"
  fi
}

# Says in a dry run what the printed commands do not.
note() {
  if [ "$dry_run" = true ]; then echo "# $*"; fi
}

# parse COMMAND FLAGS ARGUMENT...: sets a variable for each flag. FLAGS are words:
# `name=` for --name=VALUE, `spot` for --spot; `--` for a command that takes the
# pipeline's arguments.
parse() {
  local command=$1 flags=" $2 dry_run " argument flag
  shift 2
  while (($#)); do
    argument=$1
    shift
    flag=${argument%%=*}
    flag=${flag#--}
    if [[ $argument == *$'\n'* ]]; then
      fail "$(quote "$argument") holds a line break: leave it out."
    elif [[ $argument == --help ]]; then
      "help_$command"
      exit 0
    elif [[ $argument == -- && $flags == *' -- '* ]]; then
      pipeline=("$@")
      return
    elif [[ $argument == --*=* && $flags == *" $flag= "* ]]; then
      printf -v "$flag" %s "${argument#*=}"
    elif [[ $argument == --* && $flags == *" $argument= "* ||
      $argument == --* && $flags == *" $flag= "* ]]; then
      fail "$argument has no value: write --$flag=VALUE."
    elif [[ $argument == --* && $flags == *" ${argument#--} "* ]]; then
      printf -v "$flag" true
    else
      fail "$command does not take $(quote "$argument"): its flags are" \
        "$(flag_names "$flags"); see $(basename "$0") $command --help."
    fi
  done
}

flag_names() {
  local flag names=()
  for flag in $1; do
    case $flag in
      --) names+=('-- (before what the pipeline is given)') ;;
      *) names+=("--$flag") ;;
    esac
  done
  local IFS=,
  echo "${names[*]}" | sed 's/,/, /g'
}

# check FLAG PATTERN EXAMPLE: the flag's value must match the whole pattern.
check() {
  local flag=$1 value=${!1} pattern=$2 example=$3
  if [ -z "$value" ]; then
    fail "--$flag is missing: give it, as in --$flag=$example."
  fi
  if [[ ! $value =~ ^($pattern)$ ]]; then
    fail "--$flag=$(quote "$value") does not match $pattern: give one as" \
      "--$flag=$example."
  fi
}

# Checks the pipeline's arguments; they need a config of this repository and a
# workdir that all processes see under the same path.
check_pipeline() {
  local argument config=''
  for argument in ${pipeline[@]+"${pipeline[@]}"}; do
    case $argument in
      --config=*) config=${argument#--config=} ;;
      --workdir=*) workdir=${argument#--workdir=} ;;
      --*) ;;
      *)
        fail "The pipeline does not take $(quote "$argument"): behind -- stand" \
          "its flags, --config=FILE, --workdir=DIR and others."
        ;;
    esac
  done
  if [ -z "$config" ]; then
    fail "The pipeline has no config: end the command with" \
      "-- --config=configs/NAME.py --workdir=DIR."
  fi
  if [ ! -f "${config%%:*}" ]; then
    fail "--config=$(quote "$config"): there is no file ${config%%:*} in" \
      "$PWD; name one of configs/."
  fi
  case $workdir in
    *://*)
      fail "--workdir=$(quote "$workdir") is no path of a file system, which" \
        "the stages need (they rename and append): mount a shared one, such" \
        "as NFS, and give its path."
      ;;
    /*) ;;
    *)
      fail "--workdir=$(quote "$workdir") is not absolute: give a path that" \
        "is the same for all processes, on a shared file system."
      ;;
  esac
}

# Writes an archive of the repository's files as they are, without what git
# ignores.
pack() {
  git ls-files -z --cached --others --exclude-standard |
    tar --null --files-from=- -c
}

# Fails unless a program is there; a dry run does without.
need() {
  if [ "$dry_run" = false ] && ! command -v "$1" >/dev/null; then
    fail "$1 is not on PATH: install it ($2), or add --dry_run to see what" \
      "would run."
  fi
}

# dispatch COMMANDS ARGUMENT...: calls `do_COMMAND` or prints help.
dispatch() {
  local command=${2:-}
  case $command in
    '' | help | --help | -h) help_all ;;
    *)
      if [[ " $1 " != *" $command "* ]]; then
        fail "There is no command $(quote "$command"): use one of $1."
      fi
      shift 2
      "do_$command" "$@"
      ;;
  esac
}
