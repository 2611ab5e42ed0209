#!/usr/bin/env bash
# All tests: format, lints, unit and end-to-end tests on real mounts, doctests, Python. Installs what is missing.
#
# MITHRIL_CI=1 makes a test that cannot run a failure instead of a loud line.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

need_base
python=$("$root/scripts/venv.sh")
export MITHRIL_PYTHON=$python

stage() {
  local name=$1 started=$SECONDS
  shift
  say "$name"
  "$@" || die "$name failed"
  say "$name: $((SECONDS - started)) s"
}

stage "format" cargo fmt --all --check
stage "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
stage "build" cargo build --workspace --bins --quiet
stage "tests" cargo test --workspace --quiet
stage "Python package" env VIRTUAL_ENV="$(dirname "$(dirname "$python")")" "$python" -m maturin build --quiet \
  --manifest-path mithril-py/Cargo.toml --interpreter "$python" --out "$CARGO_TARGET_DIR/wheels"
site=$CARGO_TARGET_DIR/python
rm -rf "$site"
stage "install the wheel" "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
  --target "$site" --find-links "$CARGO_TARGET_DIR/wheels" --upgrade mithril
stage "pytest" env PYTHONPATH="$site" MITHRIL_FS_BIN="$CARGO_TARGET_DIR/debug/mithril-fs" \
  "$python" -m pytest -q -p no:cacheprovider mithril-py/tests tests/python
if command -v cargo-deny >/dev/null; then
  stage "cargo deny" cargo deny --log-level error check
else
  say "cargo-deny is not installed: licences and advisories were not checked"
fi
say "all passed in $SECONDS s"
