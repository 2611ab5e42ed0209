#!/usr/bin/env bash
# scripts/s3-interop.sh [SERVER...]: which S3 servers keep the contract of object stores, as a table.
#
# Servers: in-process (the one that the tests have), moto (installed by pip), minio (built by `go install`). All of them
# if none is named; one that cannot be installed is named loudly. Each runs on a free port of 127.0.0.1 with its data in a
# temporary directory, and ends with this script. What is installed stays in the target directory.
#
# MITHRIL_S3_BUCKET and AWS_* in the environment, with the SERVER `environment`, check a server of one's own. Ceph is not
# started here: a radosgw needs a monitor, a manager and disks, which packages alone do not set up.
#
# Fails if a server that ran fails a part of the suite. A server that is known by the probe not to heed conditions, or
# not to list keys below keys, and does all else, does not fail: the table says so. 77 means that nothing was checked.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MOTO=5.2.5
MINIO=v0.0.0-20260212201848-7aac2a2c5b7c
tools="$CARGO_TARGET_DIR/s3-interop"
scratch=$(mktemp -d)
log="$scratch/log"
pids=()

finish() {
  local pid
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]}"; do
    wait "$pid" 2>/dev/null || true
  done
  rm -rf --one-file-system "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# started PID URL: waits until the server answers anything.
started() {
  local tries
  for tries in $(seq 150); do
    kill -0 "$1" 2>/dev/null || break
    ! curl -s -o "$scratch/answer" --noproxy '*' --max-time 2 "$2" || return 0
    sleep 0.2
  done
  note "the server ended, or did not answer: $(tail -n 1 "$log")"
  return 1
}

need_server_tools() {
  package python3 command -v python3 && package curl command -v curl
}

start_moto() {
  need_server_tools && need_python || return 77
  local python="$tools/moto/bin/python" port
  if [ ! -e "$tools/moto/.$MOTO" ]; then
    mkdir -p "$tools"
    python3 -m venv "$tools/moto" >"$log" 2>&1 &&
      "$python" -m pip --disable-pip-version-check --quiet install "moto[server]==$MOTO" >"$log" 2>&1 || {
      note "moto $MOTO cannot be installed: $(tail -n 1 "$log")"
      return 77
    }
    touch "$tools/moto/.$MOTO"
  fi
  port=$(free_port)
  "$tools/moto/bin/moto_server" -H 127.0.0.1 -p "$port" >"$log" 2>&1 &
  pids+=($!)
  reach "http://127.0.0.1:$port" $!
}

start_minio() {
  need_server_tools || return 77
  local binary="$tools/go/bin/minio" port
  if [ ! -x "$binary" ]; then
    command -v go >/dev/null || {
      note "minio needs Go to be built: install it from https://go.dev/dl, or put minio at $binary"
      return 77
    }
    say "building minio, which takes minutes"
    GOBIN="$tools/go/bin" go install "github.com/minio/minio@$MINIO" >"$log" 2>&1 || {
      note "minio cannot be built: $(tail -n 1 "$log")"
      return 77
    }
  fi
  port=$(free_port)
  MINIO_ROOT_USER=interop MINIO_ROOT_PASSWORD=interop-secret MINIO_UPDATE=off \
    "$binary" server --quiet --address "127.0.0.1:$port" --console-address "127.0.0.1:$(free_port)" \
    "$scratch/minio" >"$log" 2>&1 &
  pids+=($!)
  reach "http://127.0.0.1:$port" $!
}

# reach URL PID: waits for the server, and makes the bucket.
reach() {
  export AWS_ENDPOINT_URL="$1" MITHRIL_S3_BUCKET=interop
  export AWS_ACCESS_KEY_ID=interop AWS_SECRET_ACCESS_KEY=interop-secret AWS_REGION=us-east-1
  unset AWS_SESSION_TOKEN AWS_PROFILE AWS_ENDPOINT_URL_S3
  started "$2" "$1" || return 1
  curl -s -f -o "$scratch/answer" --noproxy '*' --aws-sigv4 aws:amz:us-east-1:s3 \
    --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" -X PUT "$1/$MITHRIL_S3_BUCKET" ||
    { note "no bucket can be made on $1: $(head -c 300 "$scratch/answer" 2>/dev/null)"; return 1; }
}

suite() {
  local code=0
  RUST_BACKTRACE=0 "$conformance" "$@" >"$scratch/report" 2>"$scratch/panics" || code=$?
  grep -v '^TABLE' "$scratch/report" || true
  [ $code -eq 0 ] || grep -v '^note: run with' "$scratch/panics" >&2 || true
  return $code
}

[ $# -gt 0 ] || set -- in-process moto minio
conformance=${MITHRIL_S3_CONFORMANCE:-}
if [ -z "$conformance" ]; then
  need_rust
  cargo build --quiet --locked --package mithril-tests --bin s3_conformance --manifest-path "$ROOT/Cargo.toml"
  conformance="$CARGO_TARGET_DIR/debug/s3_conformance"
fi

table=() failed=() missing=() ran=0
for server in "$@"; do
  say "== $server"
  code=0
  : >"$scratch/report"
  case $server in
    in-process) suite --in-process || code=$? ;;
    environment) suite || code=$? ;;
    moto) { start_moto && suite; } || code=$? ;;
    minio) { start_minio && suite; } || code=$? ;;
    *) die "usage: s3-interop.sh [in-process|moto|minio|environment...]" ;;
  esac
  if [ $code -eq 77 ]; then
    missing+=("$server")
    table+=("| $server | did not run | | | | | | |")
    continue
  fi
  ran=$((ran + 1))
  row=$(sed -n 's/^TABLE |//p' "$scratch/report")
  table+=("| $server |${row:- did not start | | | | | |} |")
  [ $code -eq 0 ] || failed+=("$server")
done

echo
echo "| server | put if absent | put if it matches | upload if absent | upload if it matches | lists a/b beside a | parts of the suite | failed |"
echo "|---|---|---|---|---|---|---|---|"
printf '%s\n' "${table[@]}"
[ ${#missing[@]} -eq 0 ] || note "!!! DID NOT RUN: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
[ ${#failed[@]} -eq 0 ] || die "FAILED: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
[ $ran -gt 0 ] || exit 77
