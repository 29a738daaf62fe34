#!/usr/bin/env bash
# Make a base image where no registry can be reached: Debian 12 with its Python 3.11, from a Debian mirror alone.
# Usage: scripts/base-image.sh [--max-age DAYS] [REFERENCE]     then: BASE_IMAGE=REFERENCE scripts/images.sh build
# With --max-age, a base that this script made and that is not older is kept: the age is that of its security updates.
# MIRROR and SECURITY_MIRROR name a site's own mirrors. Needs root, Docker and debootstrap (which it installs).
set -euo pipefail

fail() { echo "error: $*" >&2; exit 1; }

max_age=
if [ "${1:-}" = --max-age ]; then
  [[ ${2:-} =~ ^[0-9]+$ ]] || fail "--max-age wants a number of days; usage: scripts/base-image.sh [--max-age DAYS] [REFERENCE]"
  max_age=$2
  shift 2
fi
reference=${1:-kfp-hybrid-base:bookworm}
suite=bookworm
mirror=${MIRROR:-http://deb.debian.org/debian}
security=${SECURITY_MIRROR:-http://deb.debian.org/debian-security}

recipe=$(cat "$0" - <<< "$mirror $security" | sha256sum | cut -d' ' -f1)

is_fresh() {
  local form='{{.Created}} {{index .Config.Labels "kfp-hybrid.base.recipe"}}' made
  made=$(docker image inspect --format "$form" "$reference" 2> /dev/null) || return 1
  [ "${made#* }" = "$recipe" ] && [ $(($(date +%s) - $(date +%s --date "${made% *}"))) -lt $((max_age * 86400)) ]
}

docker version > /dev/null 2>&1 || fail "Docker does not answer; start it, on Debian with scripts/docker-up.sh"
if [ -n "$max_age" ] && is_fresh; then
  echo "$reference is fresh enough"
  exit
fi
[ "$(id -u)" = 0 ] || fail "debootstrap needs root; run: sudo $0"
if ! command -v debootstrap > /dev/null; then
  { apt-get -qq update && apt-get -qq install -y --no-install-recommends debootstrap; } > /dev/null ||
    fail "cannot install debootstrap; install it yourself"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

echo "making $reference from $mirror"
# python3.11-venv brings pip to the first stage of the images. debootstrap does not resolve the virtual package
# python3.11-distutils that it depends on, so the one that provides it is named.
packages=python3,python3-distutils,python3.11-venv,ca-certificates,tzdata
debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" > "$work/log" 2>&1 ||
  { tail -20 "$work/log" >&2; fail "debootstrap could not make Debian $suite from $mirror"; }

cat > "$root/etc/apt/sources.list" <<EOF
deb $mirror $suite main
deb $mirror $suite-updates main
deb $security $suite-security main
EOF
# What upgrades and later installations need not unpack.
cat > "$root/etc/dpkg/dpkg.cfg.d/slim" <<EOF
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
EOF
cp /etc/resolv.conf "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive
{ chroot "$root" apt-get -qq update && chroot "$root" apt-get -qq -y upgrade; } > "$work/log" 2>&1 ||
  { tail -20 "$work/log" >&2; fail "cannot fetch security updates from $security"; }
chroot "$root" apt-get clean

find "$root/usr/share/doc" -type f ! -name copyright -delete
find "$root/usr/share/doc" -type l -delete
rm -rf "$root"/usr/share/{man,info,locale}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin \
  "$root"/var/cache/debconf/*-old "$root"/var/log/* "$root"/debootstrap "$root"/tmp/* "$root"/etc/machine-id
: > "$root/etc/resolv.conf"
: > "$root/etc/hostname"
find "$root" -name __pycache__ -prune -exec rm -rf {} +
chroot "$root" python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.11 /usr/lib/python3 > "$work/log" 2>&1 ||
  { tail -20 "$work/log" >&2; fail "cannot compile Python's library"; }
# Programs that give their caller more rights; a step never needs them.
find "$root" -xdev -perm /6000 -type f -exec chmod a-s {} +

tar -C "$root" --sort=name --numeric-owner --one-file-system --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* -c . |
  docker import --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' \
    --change "LABEL org.opencontainers.image.title='Debian $suite with Python 3.11' kfp-hybrid.base.recipe=$recipe" \
    - "$reference" > /dev/null
docker image inspect --format "made $reference: {{.Size}} bytes" "$reference"
