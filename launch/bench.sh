#!/usr/bin/env bash
# Runs benchmarks beside their peers, in an environment of their own.
# Usage: bash launch/bench.sh sid [--output=results/bench_sid.json]
# Makes or reuses .venv-bench: what the project needs, and the peers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
files=(requirements.txt launch/bench_requirements.txt)
if ! cat "${files[@]}" | cmp -s - .venv-bench/installed; then
  .venv/bin/python -m venv .venv-bench
  echo "Installing ${files[*]} into .venv-bench"
  .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check \
    -r "${files[0]}" -r "${files[1]}"
  cat "${files[@]}" > .venv-bench/installed
fi
# Huge pages, which help the peers more than ours.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec .venv-bench/bin/python -m launch.bench "$@"
