#!/usr/bin/env bash
# scripts/check.sh: everything that has to hold before a change is merged. Prints a line for each stage.
#
# What is missing is installed where that is possible. A stage that cannot run is named; with MITHRIL_CI=1 it is a
# failure, unless it is an optional one. What a stage printed is shown if it failed, and kept in the directory that the
# last line names.
set -uo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT" || exit 1

# A stage returns this where it cannot run; the last line that it printed says why.
CANNOT_RUN=77
# Likewise, but CI does without it too.
OPTIONAL_CANNOT_RUN=78
is_ci() { [ -n "${MITHRIL_CI:-}" ] && [ "$MITHRIL_CI" != 0 ]; }

logs="$CARGO_TARGET_DIR/check"
mkdir -p "$logs"
failed=() skipped=() passed=0
started=$SECONDS

# stage NAME COMMAND...
stage() {
  local name=$1 begun=$SECONDS code log
  shift
  log="$logs/${name// /-}.log"
  "$@" >"$log" 2>&1
  code=$?
  local seconds=$((SECONDS - begun))
  if [ $code -eq 0 ]; then
    passed=$((passed + 1))
    printf '%sok%s       %-22s %4d s\n' "$GREEN" "$PLAIN" "$name" $seconds
  elif [ $code -eq $OPTIONAL_CANNOT_RUN ] || { [ $code -eq $CANNOT_RUN ] && ! is_ci; }; then
    skipped+=("$name")
    printf '%snot run%s  %-22s %4d s  %s\n' "$YELLOW" "$PLAIN" "$name" $seconds "$(tail -n 1 "$log")"
  else
    failed+=("$name")
    printf '%sFAILED%s   %-22s %4d s\n' "$RED" "$PLAIN" "$name" $seconds
    tail -n 60 "$log" | sed 's/^/    /'
  fi
  # Whatever was said loudly of tests that could not run must not be lost in a log. It may stand behind the name of
  # the test, which libtest prints first where it runs one at a time.
  grep -ho '!!! DID NOT RUN: .*' "$log" | sort | uniq -c | sed 's/^ *\([0-9]*\) /    \1 x /'
  return $code
}

cannot() {
  echo "$*"
  return $CANNOT_RUN
}

# What rustup calls a component, and cargo a command.
formatting() {
  cargo fmt --version >/dev/null 2>&1 || { cannot "rustfmt is missing: rustup component add rustfmt"; return; }
  cargo fmt --all --check
}

lints() {
  cargo clippy --version >/dev/null 2>&1 || { cannot "clippy is missing: rustup component add clippy"; return; }
  cargo clippy --workspace --all-targets --locked -- -D warnings
}

tools() {
  local complete=0
  need_compiler || complete=$CANNOT_RUN
  need_fuse || complete=$CANNOT_RUN
  # What copies of a directory are made with, and disks whose power is cut.
  package rsync command -v rsync || complete=$CANNOT_RUN
  package e2fsprogs command -v mkfs.ext4 || complete=$CANNOT_RUN
  return $complete
}

python=''
environment() {
  # The last line that it printed says why not.
  python=$(scripts/venv.sh) || return $CANNOT_RUN
}

package_tests() {
  [ -n "$python" ] || { cannot "there is no Python with PyTorch"; return; }
  local wheels="$CARGO_TARGET_DIR/wheels" installed="$CARGO_TARGET_DIR/python"
  rm -rf "$wheels" "$installed"
  "$python" -m maturin build --manifest-path mithril-py/Cargo.toml --compatibility linux --interpreter "$python" \
    --out "$wheels" || return 1
  # A wheel is a zip of what is to be imported: nothing is installed into the user's Python.
  "$python" -m zipfile -e "$wheels"/*.whl "$installed" || return 1
  PYTHONPATH="$installed" "$python" -m pytest -q -p no:cacheprovider mithril-py/tests
}

mount_tests() {
  [ -n "$python" ] || { cannot "there is no Python with PyTorch"; return; }
  "$python" -m pytest -q -rs -p no:cacheprovider tests/python
}

# What others wrote to test file systems; longer in torture.sh.
posix_tests() { scripts/posix.sh 3000; }

# A server that others wrote; more of them in s3-interop.sh.
s3_servers() {
  local code=0
  MITHRIL_S3_CONFORMANCE="$CARGO_TARGET_DIR/debug/s3_conformance" scripts/s3-interop.sh in-process moto || code=$?
  # What ran is not all that should have.
  if [ $code -eq 0 ] && ! [ -e "$CARGO_TARGET_DIR/s3-interop/moto/bin/moto_server" ]; then
    cannot "moto cannot be installed: pip install 'moto[server]'"
    return
  fi
  return $code
}

# Benchmarks take long and need quiet: what is checked is that they measure what they say.
bench_self_test() {
  command -v python3 >/dev/null || { cannot "there is no python3"; return; }
  MITHRIL_CODEC_BENCH="$CARGO_TARGET_DIR/debug/examples/codec_bench" scripts/bench_codec.sh --self-test
}

denied() {
  if ! cargo deny --version >/dev/null 2>&1; then
    echo "licences and advisories are unchecked: cargo install cargo-deny --locked"
    return $OPTIONAL_CANNOT_RUN
  fi
  cargo deny --workspace check
}

need_rust
say "checking $ROOT with $(nproc) cores, building in $CARGO_TARGET_DIR"
stage "tools" tools
stage "python" environment
# The same interpreter in every stage, so that the bindings are built once.
[ -z "$python" ] || export PYO3_PYTHON="$python"
export PYTHONDONTWRITEBYTECODE=1
stage "formatting" formatting
stage "clippy" lints
# With all targets, dependencies get the features that the tests ask for: the next stages build nothing again.
if stage "build" cargo build --workspace --all-targets --locked; then
  export MITHRIL_FS_BIN="$CARGO_TARGET_DIR/debug/mithril-fs"
  stage "tests" cargo test --workspace --lib --bins --tests --locked --no-fail-fast
  # Always the same cases: what fails for one change and not for another is due to the change.
  stage "fuzzing" scripts/fuzz.sh --executions 10000 --seed 1
  stage "documentation tests" cargo test --workspace --doc --locked
  stage "python package" package_tests
  stage "python on a mount" mount_tests
  stage "posix" posix_tests
  stage "s3 servers" s3_servers
  stage "codec benchmark" bench_self_test
else
  failed+=("all tests, since the build failed")
fi
stage "licences" denied

echo
summary="$passed stages passed in $((SECONDS - started)) s"
[ ${#skipped[@]} -eq 0 ] || summary+="; not run: $(printf '%s, ' "${skipped[@]}" | sed 's/, $//')"
if [ ${#failed[@]} -gt 0 ]; then
  echo "${RED}FAILED: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')${PLAIN}; $summary; logs in $logs"
  exit 1
fi
echo "${GREEN}$summary${PLAIN}; logs in $logs"
