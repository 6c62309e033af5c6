#!/usr/bin/env bash
# Compiles a config's programs for TPUs that need not be there.
# Usage: bash launch/aot.sh --config=configs/qwen3_8b_beauty.py --topology=v5e:8x8
# Makes or reuses .venv-tpu: what the project needs, and libtpu. The flags:
#   .venv/bin/python -m launch.aot --help
set -euo pipefail
# shellcheck source=launch/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/environment.sh .venv-tpu requirements.txt \
  launch/requirements/aot.txt
exec .venv-tpu/bin/python -m launch.aot "$@"
