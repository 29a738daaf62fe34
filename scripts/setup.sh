#!/usr/bin/env bash
# Make the authoring environment .venv, or bring it up to date. Usage: scripts/setup.sh [EXTRAS], for instance demo,dev
# Needs Python 3.11 with pip and a package index. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=${1:-demo}
python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  echo "error: Python 3.11 is needed and ${python:-python3} is not it; install it, or name it: PYTHON=/path/to/python3.11 $0" >&2
  exit 1
fi

# What is installed is remembered under the hash of what it was made from, so that a second call costs nothing.
stamp=.venv/.installed-$extras
wanted=$(cat setup.py hybrid/__init__.py | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi
echo "making the authoring environment $PWD/.venv"
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv || { rm -rf .venv; echo "error: cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --editable ".[$extras]"
echo "$wanted" > "$stamp"
