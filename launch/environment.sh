#!/usr/bin/env bash
# Makes or reuses an environment beside .venv, at the repository's root.
# Usage: bash launch/environment.sh NAME REQUIREMENTS...
# It takes the interpreter of .venv, and installs again where one of the files
# changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=$1
shift
bash launch/setup.sh
if ! cat "$@" | cmp -s - "$name/installed"; then
  if [ ! -x "$name/bin/python" ]; then .venv/bin/python -m venv "$name"; fi
  echo "Installing $* into $name"
  "$name/bin/python" -m pip install --quiet --disable-pip-version-check \
    "${@/#/--requirement=}"
  cat "$@" > "$name/installed"
fi
