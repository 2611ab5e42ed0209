# Shared by the scripts: messages, missing packages, where things are built. Sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

apt_updated=
# need COMMAND PACKAGE: installs the Debian package unless the command is there.
need() {
  command -v "$1" >/dev/null && return 0
  command -v apt-get >/dev/null || die "$1 is missing: install it (on Debian and Ubuntu: package $2)"
  say "installing $2"
  [ -n "$apt_updated" ] || as_root apt-get update -qq >/dev/null || true
  apt_updated=1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null ||
    die "$1 is missing and the package $2 cannot be installed: run 'apt-get install $2' as root"
  command -v "$1" >/dev/null || die "$1 is still missing after installing $2"
}

# What building and mounting need.
need_base() {
  command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null || die "cargo is missing: install Rust 1.95 or later with rustup"
  need cc gcc
  need fusermount3 fuse3
  need python3 python3
}
