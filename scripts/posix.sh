#!/usr/bin/env bash
# scripts/posix.sh [OPERATIONS]: what others wrote to test file systems, on a mount and on the directory below.
#
# pjdfstest (each system call, and what it must refuse) as root and as an ordinary user, in passthrough and through the
# daemon: what fails on a mount must fail on the directory below too. fsx (random reads, writes, mappings, truncations,
# holes and copies of one file, each compared with what it should be), OPERATIONS of them (20000 if not given) each in
# passthrough and through the daemon, on a file system in memory and on disk.
#
# Both are installed by cargo into the target directory, in the versions below. Run as root; as somebody else only what
# an ordinary user may do is run.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PJDFSTEST=0.2.2 FSX=0.3.2
operations=${1:-20000}
[[ $operations =~ ^[1-9][0-9]{0,8}$ ]] || die "usage: posix.sh [OPERATIONS]"
tools="$CARGO_TARGET_DIR/tools"
binary=${MITHRIL_FS_BIN:-}
if [ -z "$binary" ]; then
  need_rust
  cargo build --quiet --release --locked --package mithril-fs --manifest-path "$ROOT/Cargo.toml"
  binary="$CARGO_TARGET_DIR/release/mithril-fs"
fi

# tool NAME VERSION: installs it unless it is there.
tool() {
  [ -e "$tools/.$1-$2" ] && return
  local log="$tools/$1.log"
  mkdir -p "$tools"
  # Not in the target directory itself: another profile would evict what was built there.
  if ! CARGO_TARGET_DIR="$tools/build" cargo install --quiet --locked --root "$tools" --version "$2" "$1" >"$log" 2>&1; then
    note "$1 $2 cannot be installed: $(tail -n 1 "$log")"
    return 77
  fi
  touch "$tools/.$1-$2"
}
tool pjdfstest $PJDFSTEST
tool fsx $FSX

mounted=() places=() fuse_mode=''
finish() {
  local place
  for place in "${mounted[@]}"; do
    # By the kernel, whatever the daemon does.
    umount -l "$place" 2>/dev/null || fusermount3 -uz "$place" 2>/dev/null || true
  done
  [ ${#places[@]} -eq 0 ] || rm -rf --one-file-system "${places[@]}"
  [ -z "$fuse_mode" ] || chmod "$fuse_mode" /dev/fuse
}
trap finish EXIT
trap 'exit 130' INT TERM

# as USER COMMAND...: for root, as somebody else.
as() {
  local user=$1
  shift
  if [ "$(id -un)" = "$user" ]; then "$@"; else setpriv --reuid="$user" --regid="$(id -gn "$user")" --clear-groups "$@"; fi
}

# place DIRECTORY OWNER: makes `below`, `above` and `beside` there, and sets $here.
place() {
  here=$(mktemp -d "$1/mithril-posix-XXXXXX")
  places+=("$here")
  mkdir "$here/below" "$here/above" "$here/beside"
  [ "$(id -u)" -ne 0 ] || chown "$2" "$here"/*
  # The tests take on other users, who are to come in, write, and execute what they need.
  chmod 755 "$here"
  chmod 777 "$here"/*
  cp "$binary" "$here/mithril-fs"
  cp "$tools/bin/pjdfstest" "$here/"
}

# mount_as USER OPTION...: mounts `below` at `above`.
mount_as() {
  local user=$1
  shift
  as "$user" "$here/mithril-fs" mount "$here/below" "$here/above" "$@"
  mounted+=("$here/above")
}

unmount() {
  # What is not packed yet is said.
  "$binary" umount "$here/above" >/dev/null
}

failed=0

configuration() {
  local group user
  for feature in posix_fallocate rename_ctime utime_now utimensat stat_st_birthtime; do
    printf '[features.%s]\n' "$feature"
  done
  printf '[settings]\nnaptime = 0.01\nallow_remount = false\n[dummy_auth]\nentries = ['
  for user in nobody daemon; do
    group=$(id -gn "$user")
    printf '["%s", "%s"],' "$user" "$group"
  done
  printf ']\n'
}

# outcomes USER DIRECTORY: a line for each test, sorted.
outcomes() {
  local output="$here/output"
  as "$1" "$here/pjdfstest" -c "$here/configuration.toml" -p "$2" >"$output" 2>&1 || true
  grep -q '^Summary: ' "$output" || { cat "$output" >&2; die "pjdfstest did not come to its end"; }
  grep -E ' (ok|failed|FAILED|skipped|expected failure)$' "$output" | awk '{ print $1, $NF }' | sort
}

# pjdfstest NAME USER MOUNTING-USER OPTION...
pjdfstest() {
  local name=$1 user=$2 mounter=$3 passed
  shift 3
  place "${MITHRIL_TEST_DIR:-/var/tmp}" "$user"
  configuration >"$here/configuration.toml"
  outcomes "$user" "$here/beside" >"$here/plain"
  mount_as "$mounter" "$@"
  outcomes "$user" "$here/above" >"$here/mount"
  unmount
  passed=$(grep -c ' ok$' "$here/mount") || true
  # What passes on the directory passes on the mount; or it is left out, because the mount cannot say a limit.
  if comm -13 "$here/plain" "$here/mount" | grep -v ' ok$' | grep -v '^link::link_count_max skipped$' >"$here/worse"; then
    printf 'pjdfstest, %s: differs from the directory below:\n' "$name"
    sed 's/^/    /' "$here/worse"
    failed=1
  elif [ "$passed" -lt 200 ]; then
    printf 'pjdfstest, %s: only %s tests passed\n' "$name" "$passed"
    failed=1
  else
    printf 'pjdfstest, %s: %s passed, none worse than below\n' "$name" "$passed"
  fi
}

# fsx NAME DIRECTORY OPTION...
fsx() {
  local name=$1 seed=$((RANDOM * 32768 + RANDOM)) begun=$SECONDS
  place "$2" root
  shift 2
  mount_as "$(id -un)" "$@"
  cat >"$here/fsx.toml" <<'TOML'
flen = 1048576
[opsize]
max = 65536
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 2
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 1
punch_hole = 2
sendfile = 2
posix_fadvise = 1
copy_file_range = 2
TOML
  if "$tools/bin/fsx" -q -f "$here/fsx.toml" -N "$operations" -S $seed -P "$here" "$here/above/file" >"$here/output" 2>&1; then
    printf 'fsx, %s: %s operations in %s s, seed %s\n' "$name" "$operations" $((SECONDS - begun)) $seed
  else
    printf 'fsx, %s: FAILED with seed %s\n' "$name" $seed
    tail -n 40 "$here/output" | sed 's/^/    /'
    failed=1
  fi
  unmount
}

if [ "$(id -u)" -eq 0 ]; then
  pjdfstest "root" root root --allow-other
  pjdfstest "root, through the daemon" root root --allow-other --no-passthrough
  pjdfstest "a user on the mount of root" daemon root --allow-other
  if [ $((0$(stat -c %a /dev/fuse) & 6)) -ne 6 ]; then
    fuse_mode=$(stat -c %a /dev/fuse)
    chmod 666 /dev/fuse
  fi
  pjdfstest "a user on a mount of theirs" daemon daemon
else
  pjdfstest "a user" "$(id -un)" "$(id -un)"
fi
fsx "passthrough, on disk" "${MITHRIL_TEST_DIR:-/var/tmp}" --settle 0
fsx "through the daemon, on disk" "${MITHRIL_TEST_DIR:-/var/tmp}" --settle 0 --no-passthrough
if [ -w /dev/shm ]; then
  fsx "passthrough, in memory" /dev/shm --settle 0
  fsx "through the daemon, in memory" /dev/shm --settle 0 --no-passthrough
fi
exit $failed
