#!/usr/bin/env bash
# scripts/torture.sh [FACTOR]: the tests with random operations, crashes and races, FACTOR times as long as usual (20
# if not given), in a release build, 100 power cuts for each of FACTOR, and the large files larger: of
# $MITHRIL_TEST_LARGE_GIB, 5 if not given. For a night, or before a release.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

factor=${1:-20}
[[ $factor =~ ^[1-9][0-9]{0,4}$ ]] || die "usage: torture.sh [FACTOR], a number from 1 to 99999"
need_rust
need_compiler || exit 1
need_fuse || exit 1
package e2fsprogs command -v mkfs.ext4 && package xfsprogs command -v mkfs.xfs || exit 1

# What the tests multiply their numbers of rounds by; proptest has a variable of its own, 256 cases if not set.
export MITHRIL_TORTURE=$factor PROPTEST_CASES=$((256 * factor)) MITHRIL_CI=1
export MITHRIL_TEST_LARGE_GIB=${MITHRIL_TEST_LARGE_GIB:-5}
# One large file that is packed, and one that is not yet.
needed=$((MITHRIL_TEST_LARGE_GIB * 2048 + 4096)) place=${MITHRIL_TEST_DIR:-/var/tmp}
[ "$(free_mib "$place")" -ge $needed ] || die "$place needs $needed MiB free: set MITHRIL_TEST_DIR to a directory with more"
cargo build --release --workspace --all-targets --locked
export MITHRIL_FS_BIN="$CARGO_TARGET_DIR/release/mithril-fs"
say "every test, $factor times as long"
started=$SECONDS
cargo test --release --workspace --lib --bins --tests --locked --no-fail-fast
say "$((factor * 100)) power cuts"
as_root env MITHRIL_FS_BIN="$MITHRIL_FS_BIN" "$CARGO_TARGET_DIR/release/power_cuts" --images $((factor * 100)) \
  --seed "$(date +%s)"
"$ROOT/scripts/posix.sh" $((factor * 50000))
"$ROOT/scripts/programs.sh" $((factor * 3))
"$ROOT/scripts/aarch64.sh" || [ $? = 78 ]
say "passed in $((SECONDS - started)) s"
