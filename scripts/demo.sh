#!/usr/bin/env bash
# scripts/demo.sh [LEVEL]: trains a small model on this machine, saves its checkpoints in a mount, and proves that they take
# less space there and come back bit for bit. They are packed with the LEVEL fast, default or max.
#
# Installs what is missing (fuse3, a C compiler, python3-venv, PyTorch in .venv), builds mithril-fs, and works in a
# temporary directory of ${TMPDIR:-/var/tmp} that is deleted at the end, as is the mount.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

level=${1:-default}
[ $# -le 1 ] && [[ $level =~ ^(fast|default|max)$ ]] || die "usage: demo.sh [fast|default|max]"

# Ten checkpoints of some 60 MB each, twice, and as much again while files are packed.
NEEDED_MIB=4000
work='' checkpoints='' child='' failures=0

is_mounted() {
  [ -n "$checkpoints" ] || return 1
  local at
  while read -r _ _ _ _ at _; do
    # A space is \040 there.
    if [ "$(printf %b "$at")" = "$checkpoints" ]; then return 0; fi
  done </proc/self/mountinfo
  return 1
}

# long COMMAND...: runs it so that a signal to this script ends it at once.
long() {
  local code=0
  "$@" &
  child=$!
  wait "$child" || code=$?
  child=''
  return $code
}

clean_up() {
  local code=$?
  trap - EXIT INT TERM HUP
  if [ -n "$child" ]; then
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  if is_mounted; then
    cd /
    "$mithril" umount "$checkpoints" >/dev/null 2>&1 || as_root umount -l "$checkpoints" 2>/dev/null ||
      fusermount3 -uz "$checkpoints" || note "$checkpoints is still mounted"
  fi
  # Never below something that is still mounted.
  if [ -n "$work" ] && ! is_mounted; then rm -rf "$work"; fi
  exit $code
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# verdict TEXT COMMAND...: PASS or FAIL, by the command.
verdict() {
  local text=$1
  shift
  if "$@"; then
    printf '%sPASS%s  %s\n' "$GREEN" "$PLAIN" "$text"
  else
    printf '%sFAIL%s  %s\n' "$RED" "$PLAIN" "$text"
    failures=$((failures + 1))
  fi
}

field() { "$python" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

say "1. What is needed"
need_rust
need_compiler || exit 1
need_fuse || exit 1
need_space "${TMPDIR:-/var/tmp}" $NEEDED_MIB
python=$("$ROOT/scripts/venv.sh" | tail -n 1) || exit 1
echo "PyTorch: $("$python" -c 'import torch; print(torch.__version__)') in $python"

say "2. Building mithril-fs"
cargo build --quiet --release --locked --package mithril-fs --manifest-path "$ROOT/Cargo.toml"
mithril="$CARGO_TARGET_DIR/release/mithril-fs"
"$mithril" --version

started=$SECONDS
work=$(cd "$(mktemp -d "${TMPDIR:-/var/tmp}/mithril-demo.XXXXXX")" && pwd -P)
checkpoints="$work/checkpoints" copy="$work/copy"
mkdir "$checkpoints" "$copy" "$work/tmp"

say "3. mithril-fs mount $checkpoints --level $level"
"$mithril" mount "$checkpoints" --level "$level"
packing=$("$mithril" status --json "$checkpoints" | field packing)
[ "$packing" = None ] || die "nothing can be packed in $work: $packing. Set TMPDIR to a directory on ext4, xfs or btrfs"

say "4. Training, with unchanged torch.save and safetensors.torch.save_file"
long env TMPDIR="$work/tmp" "$python" "$ROOT/scripts/demo/train.py" "$checkpoints" "$copy"

say "5. mithril-fs sync, ls, status"
begun=$SECONDS
long "$mithril" sync "$checkpoints"
echo "waited for packing: $((SECONDS - begun)) s"
"$mithril" ls "$checkpoints"
"$mithril" status "$checkpoints"
listing=$("$mithril" ls --json "$checkpoints")

say "6. Unmount, mount again, and read everything back"
"$mithril" umount "$checkpoints"
! is_mounted || die "$checkpoints is still mounted"
on_disk=$(du -s --block-size=1 "$checkpoints" | cut -f 1)
outside=$(du -s --apparent-size --block-size=1 "$copy" | cut -f 1)
"$mithril" mount "$checkpoints" --level "$level"
sync
if as_root sh -c 'echo 3 >/proc/sys/vm/drop_caches' 2>/dev/null; then
  echo "page cache dropped"
else
  note "the page cache cannot be dropped without root: the kernel may have kept some of what is read now"
fi
same=1
if long env TMPDIR="$work/tmp" "$python" "$ROOT/scripts/demo/compare.py" "$checkpoints" "$copy"; then same=0; fi

say "Summary, $((SECONDS - started)) s"
unpacked=$("$python" -c 'import json, sys; print(sum(f["state"] != "packed" for f in json.load(sys.stdin)))' <<<"$listing")
"$python" - "$listing" <<'PY'
import collections, json, os, sys
kinds = collections.defaultdict(lambda: [0, 0, 0])
for entry in json.loads(sys.argv[1]):
    kind = os.path.basename(entry["path"])
    kind = "step_N.pt (fp32 weights and Adam)" if kind.startswith("step_") else kind
    kind = {"model.safetensors": "model.safetensors (bf16)", "optimizer.pt": "optimizer.pt (Adam)"}.get(kind, kind)
    for position, value in enumerate((1, entry["logical_bytes"], entry["stored_bytes"])):
        kinds[kind][position] += value
for kind, (count, logical, stored) in sorted(kinds.items()):
    print(f"      {kind:36} {count:2} files {logical / 1e6:7.1f} MB in {stored / 1e6:7.1f} MB: {logical / max(stored, 1):.2f}x")
PY
ratio=$(awk -v a="$outside" -v b="$on_disk" 'BEGIN { printf "%.2f", a / b }')
verdict "every file was packed" [ "$unpacked" -eq 0 ]
verdict "every file has the SHA-256 and the tensors of the copy that was saved outside" [ $same -eq 0 ]
verdict "$((outside / 1000000)) MB of checkpoints take $((on_disk / 1000000)) MB of disk: $ratio times less" \
  [ $((on_disk * 10)) -lt $((outside * 9)) ]
[ $failures -eq 0 ] || exit 1
