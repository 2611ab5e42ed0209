# Helpers of the other scripts, which source this file. It changes nothing by itself.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A CARGO_TARGET_DIR that was set is used, so that what was built is not built again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$ROOT/target}"
# Rust that rustup installed, in a shell that has not read its profile.
[ ! -d "$HOME/.cargo/bin" ] || case ":$PATH:" in *":$HOME/.cargo/bin:"*) ;; *) PATH="$HOME/.cargo/bin:$PATH" ;; esac

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' BOLD=$'\e[1m' PLAIN=$'\e[0m'
else
  RED='' GREEN='' YELLOW='' BOLD='' PLAIN=''
fi

say() { printf '%s\n' "${BOLD}$*${PLAIN}"; }
note() { printf '%s\n' "${YELLOW}$*${PLAIN}" >&2; }
die() { printf '%s\n' "${RED}$*${PLAIN}" >&2; exit 1; }

# as_root COMMAND...: runs it as root, if there is a way without asking for a password in a script.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    return 126
  fi
}

# package PACKAGE TEST...: installs a Debian package unless TEST succeeds already. One line says it where it cannot.
package() {
  local name=$1
  shift
  if "$@" >/dev/null 2>&1; then
    return 0
  fi
  if ! command -v apt-get >/dev/null; then
    note "$name is missing and there is no apt-get here: install it with this system's package manager"
    return 1
  fi
  printf 'installing %s\n' "$name"
  local log
  log=$(mktemp)
  if { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$name" ||
    { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$name"; }; } \
    >"$log" 2>&1 && "$@" >/dev/null 2>&1; then
    rm -f "$log"
    return 0
  fi
  note "cannot install $name: run 'apt-get install $name' as root ($(tail -n 1 "$log"))"
  rm -f "$log"
  return 1
}

# What building and mounting need. Fails with one line for each thing that is missing.
need_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml")
  command -v cargo >/dev/null && found=$("${RUSTC:-rustc}" --version 2>/dev/null) ||
    die "Rust is missing: install $wanted or later from https://rustup.rs"
  found=$(cut -d ' ' -f 2 <<<"$found")
  # The older of two versions is sorted first; a nightly of the wanted version counts as that.
  [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
    die "Rust $found is older than $wanted: run 'rustup update stable', or install it from https://rustup.rs"
}
need_compiler() { package gcc command -v cc && package libc6-dev test -e /usr/include/stdio.h; }
need_python() {
  package python3 command -v python3 && package python3-venv python3 -c 'import venv, ensurepip'
}
need_fuse() {
  package fuse3 command -v fusermount3 || return 1
  [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null || true
  if [ ! -e /dev/fuse ]; then
    note "there is no /dev/fuse: in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
    return 1
  fi
  if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
    note "/dev/fuse cannot be opened by $(id -un)"
    return 1
  fi
}

# free_mib DIRECTORY: what may still be written there.
free_mib() { df -Pm "$1" | awk 'NR == 2 { print $4 }'; }

# need_space DIRECTORY MIB
need_space() {
  local free
  free=$(free_mib "$1")
  [ "$free" -ge "$2" ] || die "$1 has $free MiB free, $2 are needed: set TMPDIR to a directory with more"
}
