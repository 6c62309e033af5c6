#!/usr/bin/env bash
# Sets up .venv and runs the tests.
# Usage: bash launch/test.sh [pytest arguments]
#   bash launch/test.sh                    the fast tier (ten minutes on two cores)
#   bash launch/test.sh -m slow            what takes longer
#   bash launch/test.sh tests/rl -k clip   a part
set -euo pipefail
# shellcheck source=launch/help.sh
. "$(dirname "${BASH_SOURCE[0]}")/help.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# The whole tier by a worker a core, each test module in one of them; a worker
# takes some 3 GiB. The run fails at once if one dies, or if a test takes longer
# than ten minutes. With arguments, in one process and without that limit.
(($#)) || set -- @tests/parallel.txt
exec .venv/bin/python -m pytest "$@"
