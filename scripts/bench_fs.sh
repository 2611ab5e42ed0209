#!/usr/bin/env bash
# scripts/bench_fs.sh [PART...] [--gib N] [--pairs N]: the speed of a mount beside that of the directory below it, of
# bindfs for small files, and of reading without decoding for packed ones; both of each in one run, by turns.
#
# The parts are write, busy, plain, small and packed; all of them if none is given, some ten minutes. Run as root, on a
# machine that does nothing else: passthrough and dropping caches need it. MITHRIL_TEST_DIR says where; /var/tmp if not set.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_rust
need_fuse
[ "$(id -u)" -eq 0 ] || die "run it as root: passthrough and dropping caches need it"
package bindfs command -v bindfs || true
need_space "${MITHRIL_TEST_DIR:-/var/tmp}" 10240
cd "$ROOT"
cargo build --quiet --release --locked -p mithril-fs -p mithril-tests --bins
printf '%s, %s cores, Linux %s, %s\n' "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
  "$(uname -r)" "$(df --output=fstype "${MITHRIL_TEST_DIR:-/var/tmp}" | tail -n 1)"
exec "$CARGO_TARGET_DIR/release/fs_speed" "$@"
