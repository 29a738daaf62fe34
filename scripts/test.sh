#!/usr/bin/env bash
# All tests, each with the interpreter that its code runs in. Arguments go to every pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh demo,dev,vertex
.venv/bin/kfp-hybrid environments
tools=$PWD/.cache/test-tools
[ -d "$tools/kubeflow_trainer_api" ] ||
  .venv/bin/uv pip install --quiet --target "$tools" --python 3.11 pytest pytest-timeout hypothesis kubeflow-trainer-api==2.3.0
# The models of KServe's objects, from its wheel alone: the package itself brings a model server's dependencies.
kserve=$PWD/.cache/test-tools-kserve
[ -d "$kserve/kserve" ] || .venv/bin/uv pip install --quiet --target "$kserve" --no-deps --python 3.11 kserve==0.21.0

unit_tests_of() {
  echo "== unit tests of the image $1"
  PYTHONPATH=$tools .venv/bin/kfp-hybrid python "$1" -m pytest "tests/unit/$1" "${@:2}"
}

# Two lanes side by side, each of which keeps about one core busy.
beside() {
  local status=0
  unit_tests_of validation "$@" || status=$?
  echo "== the real clients of Kubeflow and Google Cloud, against servers on this machine"
  .venv/bin/python -m pytest tests/contract "$@" || status=$?
  echo "== a real Kubernetes"
  .venv/bin/python -m pytest tests/cluster "$@" || status=$?
  return "$status"
}

output=$(mktemp)
trap 'rm -f "$output"; kill $(jobs -p) 2>/dev/null || true' EXIT
beside "$@" > "$output" 2>&1 &
lane=$!
status=0
unit_tests_of deployment "$@" || status=$?
unit_tests_of tensorflow "$@" || status=$?
echo "== unit tests of the library, and real runs on this machine"
.venv/bin/python -m pytest tests/unit/authoring tests/local "$@" || status=$?
wait "$lane" || status=$?
cat "$output"
exit "$status"
