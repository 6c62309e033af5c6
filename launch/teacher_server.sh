#!/usr/bin/env bash
# Serves a model directory on this machine by transformers, as a teacher.
# Usage: bash launch/teacher_server.sh MODEL [--port=8000] [other flags of transformers serve]
# Makes or reuses .venv-teacher. For many lists take a faster server
# (gr2_jax/teacher/README.md).
set -euo pipefail
# shellcheck source=launch/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
model=${1:?Usage: bash launch/teacher_server.sh MODEL [--port=8000]}
shift
# The name by which the server knows it, too.
if [ -d "$model" ]; then model=$(realpath "$model"); fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/environment.sh .venv-teacher launch/requirements/teacher_server.txt
echo "Serving --config.traces.model=$model"
exec .venv-teacher/bin/transformers serve "$model" "$@"
