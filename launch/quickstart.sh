#!/usr/bin/env bash
# From nothing to a trained re-ranker on MovieLens-100K, on a CPU.
# Usage: bash launch/quickstart.sh [WORKDIR]     (default: runs/quickstart)
# Run again, it continues where it stopped and skips what is finished.
set -euo pipefail
# shellcheck source=launch/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
workdir=$(realpath -m "${1:-"$(dirname "${BASH_SOURCE[0]}")/../runs/quickstart"}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
# Huge pages for large buffers (glibc 2.35 and newer; ignored elsewhere).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec .venv/bin/python -m launch.pipeline \
  --config=configs/quickstart.py --workdir="$workdir"
