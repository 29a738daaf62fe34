#!/usr/bin/env bash
# All tests, each with the interpreter that its code runs in. Arguments go to every pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh demo,dev
.venv/bin/kfp-hybrid environments
tools=$PWD/.cache/test-tools
[ -d "$tools/pytest" ] || .venv/bin/uv pip install --quiet --target "$tools" --python 3.11 pytest pytest-timeout hypothesis

for image in deployment validation tensorflow; do
  echo "== unit tests of the image $image"
  PYTHONPATH=$tools .venv/bin/kfp-hybrid python "$image" -m pytest "tests/unit/$image" "$@"
done
echo "== unit tests of the library, and real runs on this machine"
.venv/bin/python -m pytest tests/unit/authoring tests/local "$@"
