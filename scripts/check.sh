#!/usr/bin/env bash
# Style, types, and that what is generated is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh demo,dev,vertex
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/shellcheck .ci/run scripts/*.sh

# mypy does not see through an editable install that maps folders; these links give it the packages under their names.
links=.cache/types/kfp_hybrid
mkdir -p "$links"
find "$links" -mindepth 1 -delete
ln -s "$PWD"/hybrid/* "$PWD"/components "$PWD"/pipelines "$links"/
(cd .cache/types && ../../.venv/bin/mypy --config-file ../../pyproject.toml --cache-dir ../mypy -p kfp_hybrid)

.venv/bin/python -m kfp_hybrid.catalog --check
.venv/bin/python -m kfp_hybrid.lint.docs --check docs/lint.md
bash scripts/release.sh --check
