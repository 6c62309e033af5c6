#!/usr/bin/env bash
# Compiles a config's programs for TPUs that need not be there.
# Usage: bash launch/aot.sh --config=configs/qwen3_8b_beauty.py --topology=v5e:8x8
# Makes or reuses .venv-tpu: what the project needs, and libtpu.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
files=(requirements.txt launch/aot_requirements.txt)
if ! cat "${files[@]}" | cmp -s - .venv-tpu/installed; then
  .venv/bin/python -m venv .venv-tpu
  echo "Installing ${files[*]} into .venv-tpu"
  .venv-tpu/bin/python -m pip install --quiet --disable-pip-version-check \
    -r "${files[0]}" -r "${files[1]}"
  cat "${files[@]}" > .venv-tpu/installed
fi
exec .venv-tpu/bin/python -m launch.aot "$@"
