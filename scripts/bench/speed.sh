#!/usr/bin/env bash
# speed.sh OLD NEW [ROUNDS]: packs two checkpoints of a run through a fresh mount, NEW against OLD, and reads both back
# cold: daemon restarted, page cache dropped (as root). Prints MB/s of plaintext and the daemon's peak memory.
#
# Packing is timed from the start of `sync` to its end: with hashing, decoding to compare, and what is needed to make it
# durable. scripts/bench/make_checkpoints.py trains a model and writes fitting files.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
[ $# -ge 2 ] || die "usage: speed.sh OLD NEW [ROUNDS]"
old=$1 new=$2 rounds=${3:-3}
mithril=${MITHRIL_FS_BIN:-$CARGO_TARGET_DIR/release/mithril-fs}
[ -x "$mithril" ] || (cd "$ROOT" && cargo build --release --quiet -p mithril-fs)

work=$(mktemp -d "${TMPDIR:-/var/tmp}/mithril-speed.XXXXXX")
unmount() { "$mithril" umount "$work" >/dev/null 2>&1 || umount -l "$work" 2>/dev/null || true; }
clean_up() {
  unmount
  rm -rf "$work"
}
trap clean_up EXIT

now() { date +%s.%N; }
# rate FILE BEGUN ENDED
rate() { awk -v size="$(stat -c %s "$1")" -v begun="$2" -v ended="$3" 'BEGIN { printf "%.0f MB/s", size / (ended - begun) / 1e6 }'; }
peak() {
  local pid
  pid=$("$mithril" status --json "$work" | awk -F'[ ,]+' '/"pid"/ { print $3 }')
  awk '/VmHWM/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$pid/status"
}

for ((round = 1; round <= rounds; round++)); do
  unmount
  rm -rf "$work"
  mkdir "$work"
  "$mithril" mount "$work" --settle 3600 --log /dev/null
  for step in 1 2; do
    file=$old
    [ $step = 1 ] || file=$new
    cp "$file" "$work/step_$step.safetensors"
    sync
    begun=$(now)
    "$mithril" sync "$work" >/dev/null
    ended=$(now)
    printf 'round %d: pack %-5s %s\n' "$round" "$([ $step = 1 ] && echo alone || echo delta)" "$(rate "$file" "$begun" "$ended")"
  done
  printf 'round %d: peak memory of packing %s\n' "$round" "$(peak)"
  for step in 1 2; do
    file=$old
    [ $step = 1 ] || file=$new
    unmount
    sync
    echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || note "not root: the page cache was not dropped"
    "$mithril" mount "$work" --settle 3600 --log /dev/null
    begun=$(now)
    dd if="$work/step_$step.safetensors" of=/dev/null bs=1M status=none
    ended=$(now)
    printf 'round %d: read %-5s %s, peak memory %s\n' "$round" "$([ $step = 1 ] && echo alone || echo delta)" \
      "$(rate "$file" "$begun" "$ended")" "$(peak)"
  done
  cmp "$new" "$work/step_2.safetensors"
done
