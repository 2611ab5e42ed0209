#!/usr/bin/env bash
# The main job on real checkpoints: trains a small model, saves it through a mount, and loads everything back.
#
# Installs what is missing (fuse3, a virtual environment with PyTorch). usage: demo.sh [--keep]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

keep=
[ "${1:-}" != --keep ] || keep=1
need_base
python=$("$root/scripts/venv.sh")
[ -e /dev/fuse ] || die "/dev/fuse is missing: load the kernel module fuse (modprobe fuse), or allow it in the container"
say "building"
(cd "$root" && cargo build --release --quiet -p mithril-fs)
mithril=$CARGO_TARGET_DIR/release/mithril-fs

work=$(mktemp -d "${TMPDIR:-/tmp}/mithril-demo.XXXXXX")
mounted=$work/ckpt outside=$work/outside
free=$(df --output=avail -B1 "$work" | tail -1)
[ "$free" -gt 4000000000 ] || die "the demo needs 4 GB free in $work: set TMPDIR to another directory"
cleanup() {
  "$mithril" umount "$mounted" >/dev/null 2>&1 || umount -l "$mounted" 2>/dev/null || fusermount3 -uz "$mounted" 2>/dev/null || true
  [ -n "$keep" ] || rm -rf "$work"
}
trap cleanup EXIT
mkdir "$mounted" "$outside"

say "mounting $mounted"
"$mithril" mount "$mounted"
say "training: checkpoints go through the mount, unchanged torch.save and save_file"
"$python" "$root/scripts/demo/train.py" "$mounted" "$outside"
say "waiting until everything is packed"
"$mithril" sync "$mounted" || [ $? = 7 ]
"$mithril" ls "$mounted"
"$mithril" status "$mounted"
say "unmounting, dropping caches, mounting again"
"$mithril" umount "$mounted"
if [ "$(id -u)" = 0 ]; then sync; echo 3 > /proc/sys/vm/drop_caches; else say "not root: caches stay warm"; fi
"$mithril" mount "$mounted"
say "loading everything back"
"$python" "$root/scripts/demo/compare.py" "$mounted" "$outside"
"$mithril" verify "$mounted"
"$mithril" umount "$mounted"
[ -z "$keep" ] || say "kept in $work"
