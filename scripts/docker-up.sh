#!/usr/bin/env bash
# See to it that Docker answers: install Debian's docker.io and start its daemon where there is none.
# Usage: scripts/docker-up.sh
# Does nothing when a daemon answers already. One that is started here has no bridge and leaves the firewall alone:
# images are built on the machine's own network, and steps run without any. It runs until it is told to stop:
# kill $(cat /run/kfp-hybrid-dockerd.pid)
set -euo pipefail

log=/var/log/kfp-hybrid-dockerd.log
pid=/run/kfp-hybrid-dockerd.pid

fail() { echo "error: $*" >&2; exit 1; }

if docker version > /dev/null 2>&1; then exit 0; fi
[ "$(id -u)" = 0 ] || fail "Docker does not answer, and only root can install and start it; run: sudo $0"

if ! command -v dockerd > /dev/null; then
  command -v apt-get > /dev/null || fail "there is no dockerd; install Docker (https://docs.docker.com/engine/install)"
  echo "installing docker.io"
  # The package must not start a service of its own: this script starts the daemon, with options of its own.
  guard=/usr/sbin/policy-rc.d
  if [ ! -e $guard ]; then
    trap 'rm -f $guard' EXIT
    printf '#!/bin/sh\nexit 101\n' > $guard
    chmod 755 $guard
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  output=$(apt-get -qq install -y --no-install-recommends -o Dpkg::Use-Pty=0 docker.io 2>&1) ||
    { tail -20 <<< "$output" >&2; fail "cannot install docker.io"; }
fi

echo "starting dockerd, which logs to $log"
setsid dockerd --bridge=none --iptables=false --ip6tables=false --pidfile $pid > $log 2>&1 < /dev/null &
daemon=$!
for _ in $(seq 60); do
  if docker version > /dev/null 2>&1; then exit 0; fi
  kill -0 $daemon 2> /dev/null || { tail -20 $log >&2; fail "dockerd ended; its log is $log"; }
  sleep 0.5
done
fail "dockerd does not answer after 30 s; its log is $log"
