#!/usr/bin/env bash
# The container images: build, look at, push.
#
#   scripts/images.sh list                what there is, where it runs, and what is built
#   scripts/images.sh build [IMAGE...]    build for this machine
#   scripts/images.sh test                run the tests of the built images
#   scripts/images.sh sbom [IMAGE...]     write dist/sbom/<image>.cdx.json (CycloneDX) of built images
#   scripts/images.sh push [IMAGE...]     push what is built; with PLATFORMS, build for all of them and push
#
# Without IMAGE: all but tensorflow-gpu, which is 7 GB. Settings, as environment variables:
#   REGISTRY          where the images belong; what hybrid/images.py says when not set
#   BASE_IMAGE        the base, python:3.11-slim-bookworm when not set; scripts/base-image.sh makes one without a registry
#   CA_CERTIFICATES   certificates to trust while packages are fetched; $SSL_CERT_FILE when not set
#   PIP_INDEX_URL     the package index to fetch from
#   PLATFORMS         with push: such as linux/amd64,linux/arm64
#   DOCKER            the client; the first one found that can build with BuildKit when not set
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' hybrid/__init__.py)
registry=${REGISTRY:-$(sed -n 's/^REGISTRY = "\(.*\)"$/\1/p' hybrid/images.py)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "error: $*" >&2; exit 1; }

all_images() { # those with a lock, and a variant of it
  for lock in components/images/*/requirements*.txt; do
    variant=${lock##*/requirements}
    image=${lock%/*}
    echo "${image##*/}${variant%.txt}"
  done
}

folder_of() { echo "${1%-gpu}"; }

lock_of() { # components/images/tensorflow/requirements-gpu.txt is the lock of tensorflow-gpu
  case $1 in *-gpu) echo requirements-gpu.txt ;; *) echo requirements.txt ;; esac
}

reference_of() { # registry/tensorflow:1.0-gpu: a variant is a tag, so that a profile can ask for it as a version
  case $1 in *-gpu) echo "$registry/${1%-gpu}:$version-gpu" ;; *) echo "$registry/$1:$version" ;; esac
}

platforms_of() {
  case $1 in validation | *-gpu) echo linux/amd64 ;; *) echo linux/amd64,linux/arm64 ;; esac
}

why_not() { # ... the other platforms
  case $1 in
    validation) echo "TensorFlow Data Validation 1.16 has no wheel for Linux on arm64" ;;
    *-gpu) echo "TensorFlow has CUDA for Linux on amd64 only" ;;
    *) echo "it has not been locked for other platforms" ;;
  esac
}

images_named() {
  local image
  for image in "$@"; do
    all_images | grep -x -- "$image" > /dev/null || fail "there is no image $image; there are: $(all_images | paste -sd ' ')"
    echo "$image"
  done
}

# Building with secrets takes BuildKit: buildx, or a client before 23, which has it built in.
choose_docker() {
  local candidate found=
  for candidate in ${DOCKER:-docker /usr/bin/docker}; do
    command -v "$candidate" > /dev/null || continue
    found=$candidate
    if "$candidate" buildx version > /dev/null 2>&1; then
      docker=$candidate
      build=("$docker" buildx build --load)
      return
    elif [ "$("$candidate" --version | sed 's/^Docker version \([0-9]*\).*/\1/')" -lt 23 ]; then
      docker=$candidate
      export DOCKER_BUILDKIT=1
      build=("$docker" build)
      return
    fi
  done
  [ -n "$found" ] || fail "there is no docker; install it, on Debian with scripts/docker-up.sh"
  fail "this $found cannot build with BuildKit; install its plugin docker-buildx"
}

need_daemon() {
  choose_docker
  "$docker" version > /dev/null 2>&1 || fail "Docker does not answer; start it, on Debian with scripts/docker-up.sh"
}

build_arguments() { # what a build of image $1 is called with, one argument a line
  local lock revision
  lock=components/images/$(folder_of "$1")/$(lock_of "$1")
  revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
  [ -z "$(git status --porcelain 2> /dev/null)" ] || revision=$revision-modified
  printf '%s\n' -f components/images/Dockerfile -t "$(reference_of "$1")" \
    --build-arg "IMAGE=$(folder_of "$1")" --build-arg "LOCK=$(lock_of "$1")" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --build-arg "LOCK_SHA256=$(sha256sum < "$lock" | cut -d' ' -f1)"
  [ -z "${BASE_IMAGE:-}" ] || printf '%s\n' --build-arg "BASE_IMAGE=$BASE_IMAGE"
  # As files, and secrets at that: a build argument would stay in the image's history.
  local certificates=${CA_CERTIFICATES:-${SSL_CERT_FILE:-}}
  [ -z "$certificates" ] || printf '%s\n' --secret "id=ca,src=$certificates"
  if [ -n "${PIP_INDEX_URL:-}" ]; then
    (umask 077 && printf %s "$PIP_INDEX_URL" > "$work/index")
    printf '%s\n' --secret "id=index,src=$work/index"
  fi
  # A daemon without a bridge, such as that of docker-up.sh, has only the machine's own network.
  "$docker" network inspect bridge > /dev/null 2>&1 || printf '%s\n' --network host
}

build_images() {
  need_daemon
  local image arguments
  for image in "$@"; do
    echo "building $(reference_of "$image")"
    mapfile -t arguments < <(build_arguments "$image")
    "${build[@]}" "${arguments[@]}" . > "$work/log" 2>&1 || {
      tail -30 "$work/log" >&2
      fail "cannot build $image from ${BASE_IMAGE:-python:3.11-slim-bookworm}; without a registry, make a base with" \
        "scripts/base-image.sh and set BASE_IMAGE=kfp-hybrid-base:bookworm"
    }
  done
  list_images "$@"
}

# What a step in image $1 imports.
libraries_of() {
  case $1 in
    validation) echo tensorflow_data_validation ;;
    tensorflow*) echo tensorflow ;;
    serving) echo ai_edge_litert.interpreter ;;
    *) echo kubernetes ;;
  esac
}

seconds() { # that a command takes, the better of two
  local start end best=
  for _ in 1 2; do
    start=$(date +%s%N)
    "$@" > /dev/null 2>&1 || { echo failed; return; }
    end=$((($(date +%s%N) - start) / 10000000))
    if [ -z "$best" ] || [ $end -lt "$best" ]; then best=$end; fi
  done
  echo "$((best / 100)).$(printf %02d $((best % 100))) s"
}

list_images() {
  local image reference bytes run
  printf '%-15s %-45s %-24s %9s %9s %9s\n' image reference platforms size starts imports
  for image in "$@"; do
    reference=$(reference_of "$image")
    printf '%-15s %-45s %-24s ' "$image" "$reference" "$(platforms_of "$image")"
    if bytes=$("${docker:-docker}" image inspect --format '{{.Size}}' "$reference" 2> /dev/null); then
      run=("${docker:-docker}" run --rm --network none "$reference" env _KFP_RUNTIME=true python3)
      printf '%6d MB %9s %9s\n' $((bytes / 1000000)) "$(seconds "${run[@]}" -c 'import kfp.dsl.executor_main')" \
        "$(seconds "${run[@]}" -c "import $(libraries_of "$image")")"
    else
      printf '%9s\n' 'not built'
    fi
  done
}

push_images() {
  need_daemon
  local image platforms arguments
  for image in "$@"; do
    if [ -z "${PLATFORMS:-}" ]; then
      "$docker" push "$(reference_of "$image")" || fail "cannot push $(reference_of "$image"); build it, and docker login"
      continue
    fi
    platforms=$(common "$PLATFORMS" "$(platforms_of "$image")")
    [ "$platforms" = "$PLATFORMS" ] || echo "$image: ${platforms:-nothing} instead of $PLATFORMS: $(why_not "$image")" >&2
    [ -n "$platforms" ] || continue
    "$docker" buildx version > /dev/null 2>&1 || fail "PLATFORMS needs the Docker plugin buildx; install docker-buildx"
    mapfile -t arguments < <(build_arguments "$image")
    "$docker" buildx build --platform "$platforms" --push "${arguments[@]}" .
  done
}

common() { # those of the list $1 that are in the list $2 too
  tr ',' '\n' <<< "$1" | grep -Fx -f <(tr ',' '\n' <<< "$2") | paste -sd, || true
}

write_sboms() {
  need_daemon
  mkdir -p dist/sbom
  local image reference
  for image in "$@"; do
    reference=$(reference_of "$image")
    "$docker" image inspect "$reference" > /dev/null 2>&1 || fail "$image is not built; run: scripts/images.sh build $image"
    "$docker" run --rm -i --network none "$reference" python3 - "$reference" < scripts/image_sbom.py > "$work/sbom"
    mv "$work/sbom" "dist/sbom/$image.cdx.json"
    echo "wrote dist/sbom/$image.cdx.json"
  done
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  list | build | push | sbom) ;;
  test)
    .venv/bin/python -m pytest tests/images "$@"
    exit
    ;;
  *) fail "usage: scripts/images.sh list|build|test|sbom|push [IMAGE...]" ;;
esac
if [ $# -gt 0 ]; then
  chosen=$(images_named "$@")
elif [ "$command" = list ]; then
  chosen=$(all_images)
else
  chosen=$(all_images | grep -v -- '-gpu$')
fi
# shellcheck disable=SC2086 # names of images have no spaces
case $command in
  list) list_images $chosen ;;
  build) build_images $chosen ;;
  push) push_images $chosen ;;
  sbom) write_sboms $chosen ;;
esac
