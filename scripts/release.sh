#!/usr/bin/env bash
# Write the compiled packages and their index, pipelines/compiled/. With --check: say which are stale.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh demo,dev,vertex
exec .venv/bin/python -m kfp_hybrid.release "$@"
