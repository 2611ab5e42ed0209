#!/usr/bin/env bash
# scripts/fuzz.sh [TARGET...] [--executions N] [--seed N] [--jobs N] [--guided]: changed encodings and noise for every
# decoder, or for the TARGETs, 1000000 executions each if not given otherwise.
# scripts/fuzz.sh --replay FILE: executes a case that failed once more. scripts/fuzz.sh --list: the targets.
#
# Overflows and debug assertions are checked. The seed is printed; the same seed gives the same cases. Cases that fail
# are kept in target/fuzz/failures, and how to execute one again is printed. With --guided, the compiler counts which
# branches are taken, and what reaches new ones is changed further: slower, and it gets deeper.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_rust
arguments=() build=(cargo build --quiet --locked --manifest-path "$ROOT/Cargo.toml" -p mithril-fuzz)
binary="$CARGO_TARGET_DIR/debug/mithril-fuzz"
for argument in "$@"; do
  if [ "$argument" = --guided ]; then
    # Build scripts and macros are not counted: with a target of its own, flags are not theirs.
    host=$(rustc -vV | sed -n 's/^host: //p')
    export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    build+=(--target "$host" --target-dir "$CARGO_TARGET_DIR/fuzz/guided")
    binary="$CARGO_TARGET_DIR/fuzz/guided/$host/debug/mithril-fuzz"
  else
    arguments+=("$argument")
  fi
done
"${build[@]}"
exec "$binary" --failures "$CARGO_TARGET_DIR/fuzz/failures" "${arguments[@]}"
