#!/usr/bin/env bash
# A kind cluster with Kubeflow Pipelines, this collection's images and packages, and the main job run on it.
# Usage: scripts/kind-up.sh [--minimal] [--no-run] [--kfp-manifests DIR]
#
#   --minimal             without KServe; models are served by plain Deployments
#   --no-run              do not run the main job at the end
#   --kfp-manifests DIR   install what scripts/kfp-manifests.sh wrote into DIR, not the release on GitHub
#
# Run it again at any time: what is there is kept. scripts/kind-down.sh removes all of it. Settings, as variables:
#   REGISTRY_IMAGE   the image of the local registry; registry:2 when not set
#   BASE_IMAGE, CA_CERTIFICATES, PIP_INDEX_URL   for building the images, see scripts/images.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cluster=kfp
context=kind-$cluster
registry_name=kfp-registry
registry_port=5001
registry=localhost:$registry_port/kfp-hybrid
kfp_version=2.17.0
kserve_version=v0.20.0
cert_manager_version=v1.17.0
state=.cache/kind
config=$state/kfp-hybrid.toml

minimal=false
run=true
kfp_manifests=

fail() { echo "error: $*" >&2; exit 1; }
say() { echo "== $*"; }

while [ $# -gt 0 ]; do
  case $1 in
    --minimal) minimal=true ;;
    --no-run) run=false ;;
    --kfp-manifests)
      kfp_manifests=${2:-}
      for file in cluster-scoped.yaml kfp.yaml; do
        [ -f "$kfp_manifests/$file" ] || fail "there is no $kfp_manifests/$file; give a folder that has it"
      done
      shift
      ;;
    *) fail "usage: scripts/kind-up.sh [--minimal] [--no-run] [--kfp-manifests DIR]" ;;
  esac
  shift
done

need() { command -v "$1" > /dev/null || fail "there is no $1; $2"; }

on_cluster() { kubectl --context "$context" "$@"; }

check_tools() {
  need docker "install it: https://docs.docker.com/engine/install"
  need kind "install it: https://kind.sigs.k8s.io/docs/user/quick-start"
  need kubectl "install it: https://kubernetes.io/docs/tasks/tools"
  [ -n "$kfp_manifests" ] || need git "install it: kubectl fetches Kubeflow Pipelines with it"
  docker version > /dev/null 2>&1 || fail "Docker does not answer; start it, on Debian with scripts/docker-up.sh"
  bash scripts/setup.sh demo
}

start_registry() {
  if [ "$(docker inspect --format '{{.State.Running}}' $registry_name 2> /dev/null)" != true ]; then
    say "starting the registry localhost:$registry_port"
    docker start $registry_name > /dev/null 2>&1 ||
      docker run --detach --restart unless-stopped --name $registry_name --publish "127.0.0.1:$registry_port:5000" \
        "${REGISTRY_IMAGE:-registry:2}" > /dev/null ||
      fail "cannot start the registry; is port $registry_port taken? REGISTRY_IMAGE names another image than registry:2"
  fi
}

start_cluster() {
  if ! kind get clusters 2> /dev/null | grep -x "$cluster" > /dev/null; then
    say "making the cluster $cluster"
    kind create cluster --config manifests/kind/cluster.yaml --wait 5m ||
      fail "kind cannot make the cluster; kind export logs says more, and scripts/kind-down.sh removes what is left"
  fi
  docker network inspect --format '{{range .Containers}}{{.Name}} {{end}}' kind | grep -w $registry_name > /dev/null ||
    docker network connect kind $registry_name || fail "cannot connect the registry to the network of kind"
  local node folder=/etc/containerd/certs.d/localhost:$registry_port
  for node in $(kind get nodes --name "$cluster"); do
    docker exec "$node" mkdir -p "$folder"
    printf '[host."http://%s:5000"]\n' $registry_name |
      docker exec --interactive "$node" cp /dev/stdin "$folder/hosts.toml"
  done
}

push_images() {
  say "building the images and pushing them to $registry"
  REGISTRY=$registry scripts/images.sh build
  REGISTRY=$registry scripts/images.sh push
}

fetch_kfp() { # writes cluster-scoped.yaml and kfp.yaml with known images only
  local from=$kfp_manifests file
  if [ -z "$from" ]; then
    from=$state/unpinned
    bash scripts/kfp-manifests.sh "$from" "$kfp_version" || fail "or give a folder with them: --kfp-manifests"
  fi
  for file in cluster-scoped.yaml kfp.yaml; do
    .venv/bin/python -m kfp_hybrid.bundle.third_party manifests/kind/images.yaml < "$from/$file" > "$state/$file"
  done
}

install_kfp() {
  say "installing Kubeflow Pipelines $kfp_version"
  fetch_kfp
  on_cluster apply --server-side --force-conflicts -f "$state/cluster-scoped.yaml"
  on_cluster wait --for=condition=established --timeout=60s crd --all
  on_cluster apply --server-side --force-conflicts -f "$state/kfp.yaml"
  on_cluster -n kubeflow wait --for=condition=available --timeout=15m deployment --all ||
    fail "Kubeflow Pipelines does not get ready; see: kubectl --context $context -n kubeflow get pods"
  record_digests
}

record_digests() { # what the cluster runs, for manifests/kind/images.yaml
  local columns='{range .items[*].status.containerStatuses[*]}{.image}{" "}{.imageID}{"\n"}{end}'
  on_cluster -n kubeflow get pods -o jsonpath="$columns" | sort -u > "$state/images.txt"
  say "the digests of the images that run are in $state/images.txt"
}

install_kserve() { # its controller and runtimes; not its controller for LLMs, which needs gateways
  say "installing KServe $kserve_version"
  local source=https://github.com/kserve/kserve/config
  local cert_manager=https://github.com/cert-manager/cert-manager/releases/download/$cert_manager_version
  on_cluster apply -f "$cert_manager/cert-manager.yaml"
  on_cluster -n cert-manager wait --for=condition=available --timeout=5m deployment --all
  apply_kserve "$source/crd/full"
  on_cluster wait --for=condition=established --timeout=60s crd --all
  apply_kserve "$source/overlays/standalone/kserve"
  on_cluster -n kserve wait --for=condition=available --timeout=5m deployment --all
  apply_kserve "$source/runtimes"
  # There is no Knative here.
  on_cluster -n kserve patch configmap inferenceservice-config --type merge \
    --patch '{"data": {"deploy": "{\"defaultDeploymentMode\": \"Standard\"}"}}'
  # This collection's model server, which KServe finds by the format of a model.
  kubectl kustomize manifests/serving > "$work/serving.yaml"
  sed "s|ghcr.io/kfp-hybrid/|$registry/|" "$work/serving.yaml" > "$state/serving.yaml"
  on_cluster apply --server-side --force-conflicts -f "$state/serving.yaml"
}

apply_kserve() { # URL of a kustomization; in the sources, the images of KServe have no version
  kubectl kustomize "$1?ref=$kserve_version&timeout=120s" > "$work/fetched.yaml" ||
    fail "cannot fetch KServe from GitHub; --minimal does without"
  sed "s/\(kserve[^ ]*\):latest/\1:$kserve_version/" "$work/fetched.yaml" > "$work/kserve.yaml"
  on_cluster apply --server-side --force-conflicts -f "$work/kserve.yaml"
}

write_config() { # the target kind, in a file of its own
  local edit="s|^kind = \"kubeflow\"\$|&\nregistry = \"$registry\"|"
  $minimal || edit="$edit;/^serving = \"deployment\"\$/d"
  sed "$edit" manifests/overlays/kind/kfp-hybrid.toml > "$config.new"
  mv "$config.new" "$config"
}

write_overlay() { # the overlay for kind with the local registry
  cat > "$state/kustomization.yaml" << EOF
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: kubeflow
resources: [../../manifests/overlays/kind]
images:
  - {name: ghcr.io/kfp-hybrid/deployment, newName: $registry/deployment}
configMapGenerator:
  - {name: kfp-hybrid-profile, behavior: replace, files: [kfp-hybrid.toml]}
generatorOptions: {disableNameSuffixHash: true}
EOF
}

make_secret() { # the keys of the object store that comes with Kubeflow Pipelines, under the name that the profile has
  local key value
  (
    umask 077
    for key in accesskey:AWS_ACCESS_KEY_ID secretkey:AWS_SECRET_ACCESS_KEY; do
      value=$(on_cluster -n kubeflow get secret mlpipeline-minio-artifact -o "jsonpath={.data.${key%%:*}}" | base64 -d)
      printf '%s=%s\n' "${key##*:}" "$value"
    done > "$work/object-store.env"
    echo S3_ENDPOINT=http://seaweedfs.kubeflow:9000 >> "$work/object-store.env"
  )
  cp manifests/secrets/kustomization.yaml "$work/"
  kubectl kustomize "$work" | on_cluster apply -n kubeflow -f -
}

install_collection() {
  say "installing this collection and uploading its packages"
  make_secret
  write_overlay
  # A Job cannot be changed; the one of an earlier call has done its work.
  on_cluster -n kubeflow delete job -l app.kubernetes.io/part-of=kfp-hybrid --ignore-not-found
  on_cluster apply -k "$state"
  on_cluster -n kubeflow wait --for=condition=complete --timeout=10m job -l app.kubernetes.io/part-of=kfp-hybrid ||
    fail "the packages are not uploaded; see: kubectl --context $context -n kubeflow logs job/kfp-hybrid-pipelines-..."
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check_tools
mkdir -p "$state"
write_config
start_registry
start_cluster
push_images
install_kfp
$minimal || install_kserve
install_collection
if $run; then
  say "running the main job"
  KFP_HYBRID_CONFIG=$config .venv/bin/kfp-hybrid run train_and_publish --target kind --watch
fi
cat << EOF
The cluster is up. For the command line:  export KFP_HYBRID_CONFIG=$PWD/$config KFP_HYBRID_TARGET=kind
For the console:  kubectl --context $context -n kubeflow port-forward svc/ml-pipeline-ui 8080:80
EOF
