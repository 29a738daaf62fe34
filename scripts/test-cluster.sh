#!/usr/bin/env bash
# The end-to-end tests on a real Kubeflow Pipelines. docs/testing-on-a-cluster.md says what to set.
# Usage: scripts/test-cluster.sh [OPTIONS OF PYTEST]     run them, and take away all that they made
#        scripts/test-cluster.sh --clean NAME            take away what a suite made that was killed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "error: $*" >&2; exit 1; }

[ -n "${KFP_HYBRID_TEST_TARGET:-}${KFP_HYBRID_TEST_HOST:-}" ] ||
  fail "set KFP_HYBRID_TEST_TARGET to a target of kfp-hybrid.toml, or KFP_HYBRID_TEST_HOST; see docs/testing-on-a-cluster.md"
bash scripts/setup.sh demo,dev
if [ "${1:-}" = --clean ]; then
  [ $# -eq 2 ] || fail "usage: scripts/test-cluster.sh --clean NAME; the suite said its name when it began"
  PYTHONPATH=tests/cluster/end_to_end exec .venv/bin/python -m end_to_end_suite.cleaning "$2"
fi
exec .venv/bin/python -m pytest tests/cluster/end_to_end -v -s -rs "$@"
