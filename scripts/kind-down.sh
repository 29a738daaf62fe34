#!/usr/bin/env bash
# Remove what scripts/kind-up.sh made: the cluster with all its data, the local registry, and .cache/kind.
# Usage: scripts/kind-down.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "error: $*" >&2; exit 1; }

[ $# -eq 0 ] || fail "usage: scripts/kind-down.sh"
command -v docker > /dev/null || fail "there is no docker; install it: https://docs.docker.com/engine/install"
command -v kind > /dev/null || fail "there is no kind; install it: https://kind.sigs.k8s.io/docs/user/quick-start"

if kind get clusters 2> /dev/null | grep -x kfp > /dev/null; then
  kind delete cluster --name kfp || fail "kind cannot delete the cluster; is Docker running?"
fi
if docker inspect kfp-registry > /dev/null 2>&1; then
  docker rm --force --volumes kfp-registry > /dev/null || fail "cannot remove the container kfp-registry"
fi
rm -rf .cache/kind
echo "the cluster kfp and its registry are gone"
