#!/usr/bin/env bash
# Runs benchmarks beside their peers, in a separate environment.
# Usage: bash launch/bench.sh sid [--output=results/bench_sid.json]
# Makes or reuses .venv-bench: what the project needs, and the peers. The flags:
#   .venv/bin/python -m launch.bench --help
set -euo pipefail
# shellcheck source=launch/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/environment.sh .venv-bench requirements.txt \
  launch/requirements/bench.txt launch/requirements/serve.txt
# Huge pages, which help the peers more than ours.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec .venv-bench/bin/python -m launch.bench "$@"
