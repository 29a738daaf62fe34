#!/usr/bin/env bash
# All tests, each suite with the interpreter that its code runs in; as many suites at a time as there are cores.
# Usage: scripts/test.sh [--images] [ARGUMENTS OF PYTEST]
#
#   --images   also build the images and run their tests, see docs/images.md
#
# Settings, as variables:
#   JOBS         how many suites at a time
#   BASE_IMAGE   with --images: the base to build from; when not set, one is made with scripts/base-image.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The longest come first, so that the last ones end at about the same time.
suites=(library tensorflow cluster validation contract serving deployment)
if [ "${1:-}" = --images ]; then
  suites=(images "${suites[@]}")
  shift
fi

bash scripts/setup.sh demo,dev,vertex
.venv/bin/kfp-hybrid environments
# Install with uv into a folder, unless just that has been done as a whole: a call that was killed is made up for.
install() {
  local folder=$1
  shift
  [ "$(cat "$folder/.installed" 2> /dev/null)" != "$*" ] || return 0
  .venv/bin/uv pip install --quiet "$@"
  mkdir -p "$folder"
  echo "$*" > "$folder/.installed"
}
tools=$PWD/.cache/test-tools
install "$tools" --target "$tools" --python 3.11 pytest pytest-timeout hypothesis kubeflow-trainer-api==2.3.0
# The models of KServe's objects, from its wheel alone: the package itself brings a model server's dependencies.
kserve=$PWD/.cache/test-tools-kserve
install "$kserve" --target "$kserve" --no-deps --python 3.11 kserve==0.21.0
# The real clients of the model server, with what they need beyond the image's lock.
clients=$PWD/.cache/test-tools-serving
install "$clients" --target "$clients" --no-deps --python 3.11 \
  tritonclient==2.73.0 geventhttpclient gevent greenlet zope.event zope.interface brotli python-rapidjson
# KServe's client needs as much as its server, so that it has an environment of its own.
client=$PWD/.cache/kserve-client
[ -x "$client/bin/python" ] || .venv/bin/uv venv --quiet --python 3.11 "$client"
install "$client" --python "$client/bin/python" kserve==0.21.0

test_images() {
  if [ -z "${BASE_IMAGE:-}" ]; then
    export BASE_IMAGE=kfp-hybrid-base:bookworm
    bash scripts/base-image.sh --max-age 7 "$BASE_IMAGE" || return
  fi
  bash scripts/images.sh build && bash scripts/images.sh test "$@"
}

run_suite() {
  local suite=$1
  shift
  case $suite in
    library) .venv/bin/python -m pytest tests/unit/authoring tests/local "$@" ;;
    contract) .venv/bin/python -m pytest tests/contract "$@" ;;
    cluster) .venv/bin/python -m pytest tests/cluster "$@" ;;
    images) test_images "$@" ;;
    serving) PYTHONPATH=$tools:$clients .venv/bin/kfp-hybrid python serving -m pytest tests/unit/serving "$@" ;;
    *) PYTHONPATH=$tools .venv/bin/kfp-hybrid python "$suite" -m pytest "tests/unit/$suite" "$@" ;; # of an image
  esac
}

# A suite prints into a file, which is shown when it has ended.
start_suite() {
  local status=0
  run_suite "$@" > "$output/$1" 2>&1 < /dev/null || status=$?
  (
    flock 9
    echo "== $1, after $SECONDS s: $([ $status = 0 ] && echo passed || echo "failed with status $status")"
    cat "$output/$1"
  ) 9> "$output/lock"
  return $status
}

# shellcheck disable=SC2329 # the trap calls it
stop() { # ends what still runs, as Ctrl-C would: tests remove what they made
  local job
  for job in $(jobs -p); do kill -INT -- "-$job" 2> /dev/null || true; done
  wait
  rm -rf "$output"
}

output=$(mktemp -d)
trap stop EXIT
trap 'exit 130' INT TERM
set -m # each suite is a process group of its own, which Ctrl-C reaches through stop
running=0
status=0
for suite in "${suites[@]}"; do
  if [ "$running" = "${JOBS:-$(nproc)}" ]; then
    wait -n || status=1
    running=$((running - 1))
  fi
  echo "== $suite starts"
  start_suite "$suite" "$@" &
  running=$((running + 1))
done
for _ in $(seq "$running"); do wait -n || status=1; done
exit $status
