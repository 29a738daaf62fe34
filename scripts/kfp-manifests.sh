#!/usr/bin/env bash
# Write the manifests of Kubeflow Pipelines for one namespace into a folder, as cluster-scoped.yaml and kfp.yaml.
# Usage: scripts/kfp-manifests.sh FOLDER [VERSION]     needs kubectl, git and GitHub
# For scripts/kind-up.sh --kfp-manifests and kfp-hybrid bundle create --kfp-manifests, where GitHub cannot be reached.
set -euo pipefail

folder=${1:-}
version=${2:-2.17.0}
base=https://github.com/kubeflow/pipelines/manifests/kustomize

fail() { echo "error: $*" >&2; exit 1; }

[ -n "$folder" ] || fail "usage: scripts/kfp-manifests.sh FOLDER [VERSION]"
command -v kubectl > /dev/null || fail "there is no kubectl; install it: https://kubernetes.io/docs/tasks/tools"
command -v git > /dev/null || fail "there is no git; install it: kubectl fetches Kubeflow Pipelines with it"

write() { # FILE PATH: there whole or not at all
  kubectl kustomize "$base/$2?ref=$version&timeout=120s" > "$folder/$1.unfinished" ||
    fail "cannot fetch Kubeflow Pipelines from GitHub; run this elsewhere and bring the folder here"
  mv "$folder/$1.unfinished" "$folder/$1"
}

mkdir -p "$folder"
write cluster-scoped.yaml cluster-scoped-resources
write kfp.yaml env/platform-agnostic
