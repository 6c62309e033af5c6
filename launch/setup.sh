#!/usr/bin/env bash
# Makes or reuses .venv at the repository's root and installs what is missing.
# Usage: bash launch/setup.sh [test]      "test" adds the tools of the tests.
# PYTHON names the interpreter to build it from (3.11 or newer; default: the
# newest python3.x on PATH that is new enough).
set -euo pipefail
# shellcheck source=launch/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 \
    python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "$candidate"
      return
    fi
  done
  echo 'No Python 3.11 or newer found: install one, or name it in PYTHON.' >&2
  exit 1
}

files=(requirements.txt)
if [ "${1:-}" = test ]; then
  files+=(launch/requirements/teacher.txt launch/requirements/serve.txt
    tests/requirements.txt)
fi

if [ ! -x .venv/bin/python ]; then
  "$(find_python)" -m venv .venv
fi
for file in "${files[@]}"; do
  stamp=".venv/installed-$(echo "$file" | tr / -)"
  if ! cmp -s "$file" "$stamp"; then
    echo "Installing $file into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      -r "$file"
    cp "$file" "$stamp"
  fi
done
