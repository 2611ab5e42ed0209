#!/usr/bin/env bash
# ratio.sh FIRST [NEXT...]: saves files through a fresh mount, one after the other as steps of one sequence, and prints
# for each its bytes over what the directory below grew by: blocks as du counts them, everything of ours included.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
[ $# -gt 0 ] || die "usage: ratio.sh FIRST [NEXT...]"
mithril=${MITHRIL_FS_BIN:-$CARGO_TARGET_DIR/release/mithril-fs}
[ -x "$mithril" ] || (cd "$ROOT" && cargo build --release --quiet -p mithril-fs)

work=$(mktemp -d "${TMPDIR:-/var/tmp}/mithril-ratio.XXXXXX")
cleanup() {
  exec 9<&-
  "$mithril" umount "$work" >/dev/null 2>&1 || umount -l "$work" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
exec 9<"$work"
# Below the mount: through a descriptor from before it.
used() { du -s -B1 "/proc/$$/fd/9/" | cut -f1; }
before=$(used)
"$mithril" mount "$work" --settle 3600 --log /dev/null
step=0
for file in "$@"; do
  step=$((step + 1))
  cp "$file" "$work/step_$step.${file##*.}"
  "$mithril" sync "$work" >/dev/null || [ $? = 7 ]
  after=$(used)
  size=$(stat -c %s "$file")
  awk -v size="$size" -v grew=$((after - before)) -v name="${file##*/}" \
    'BEGIN { printf "%-36s %12d bytes, grew by %10d, ratio %.3f\n", name, size, grew, size / grew }'
  before=$after
done
