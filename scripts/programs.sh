#!/usr/bin/env bash
# scripts/programs.sh [SECONDS]: programs that people use, and tools that verify what they wrote, on a mount whose files
# are packed as they go; SECONDS (10 if not given) for each tool that runs for a time. Installs what is missing.
#
# git clone and fsck, a build by cargo, SQLite in three journal modes, rsync and tar there and back with holes and links,
# fio with verification (random, sequential, by mappings, past the page cache), dbench, and all of stress-ng's file stressors;
# find, ls, rsync and git over 100,000 files by another user, with the usual limit of descriptors.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

seconds=${1:-10}
[[ $seconds =~ ^[1-9][0-9]{0,4}$ ]] || die "usage: programs.sh [SECONDS]"
missing=0
for tool in git rsync fio dbench stress-ng; do package $tool command -v $tool || missing=1; done
package python3 python3 -c 'import sqlite3' || missing=1
[ $missing -eq 0 ] || exit 77
binary=${MITHRIL_FS_BIN:-}
if [ -z "$binary" ]; then
  need_rust
  cargo build --quiet --release --locked --package mithril-fs --manifest-path "$ROOT/Cargo.toml"
  binary="$CARGO_TARGET_DIR/release/mithril-fs"
fi

here=$(mktemp -d "${MITHRIL_TEST_DIR:-/var/tmp}/mithril-programs-XXXXXX")
finish() {
  cd /
  umount -l "$here/mount" 2>/dev/null || fusermount3 -uz "$here/mount" 2>/dev/null || true
  rm -rf --one-file-system "$here"
}
trap finish EXIT
trap 'exit 130' INT TERM
chmod 755 "$here"
mkdir "$here/below" "$here/mount"
log="$here/log"

# step NAME COMMAND...
step() {
  local name=$1 begun=$SECONDS
  shift
  # In the background: within a condition, bash would go on behind a command that failed.
  (cd "$here/mount"; "$@") >"$log" 2>&1 &
  if wait $!; then
    printf '%sok%s       %-40s %4d s\n' "$GREEN" "$PLAIN" "$name" $((SECONDS - begun))
  else
    printf '%sFAILED%s   %s\n' "$RED" "$PLAIN" "$name"
    tail -n 40 "$log" | sed 's/^/    /'
    failed=1
  fi
}

clone() {
  # Any repository will do. Its packs are written, mapped and read at random.
  git -c init.defaultBranch=main init --quiet source
  cp -r "$ROOT/mithril-engine" "$ROOT/mithril-fs" "$ROOT/docs" source/
  git -C source add -A
  git -C source -c user.name=a -c user.email=a@b commit --quiet -m one
  git clone --quiet --no-hardlinks source clone
  git -C clone gc --quiet
  git -C clone fsck --full --strict
  [ -z "$(git -C clone status --porcelain)" ]
  diff -r --exclude .git source clone
}

build() {
  mkdir program
  cd program
  cargo init --quiet --name program .
  # One with a macro crate, whose library the compiler maps and runs.
  cp "$ROOT/Cargo.lock" .
  printf 'serde = { version = "1", features = ["derive"] }\n' >>Cargo.toml
  printf '#[derive(serde::Serialize)] struct S;\nfn main() { let _ = S; println!("built"); }\n' >src/main.rs
  CARGO_TARGET_DIR=$PWD/target RUSTFLAGS=-Adead_code cargo run --quiet --offline | grep -qx built ||
    CARGO_TARGET_DIR=$PWD/target RUSTFLAGS=-Adead_code cargo run --quiet | grep -qx built
}

sqlite() {
  python3 - "$seconds" <<'PY'
import os, random, sqlite3, sys, threading, time

for mode in ("WAL", "DELETE", "TRUNCATE"):
    name = f"{mode}.sqlite"
    database = sqlite3.connect(name, timeout=60)
    database.execute(f"pragma journal_mode={mode}")
    database.execute("create table t (k integer primary key, v blob, sum integer)")
    database.commit()
    until = time.monotonic() + float(sys.argv[1]) / 3

    def write(seed):
        numbers = random.Random(seed)
        own = sqlite3.connect(name, timeout=60)
        while time.monotonic() < until:
            with own:
                value = numbers.randbytes(numbers.randrange(4000))
                own.execute("insert or replace into t values (?, ?, ?)", (numbers.randrange(2000), value, sum(value)))
            if numbers.random() < 0.1:
                for _, value, total in own.execute("select * from t"):
                    assert sum(value) == total
        own.close()

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    [writer.start() for writer in writers]
    [writer.join() for writer in writers]
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    assert all(sum(value) == total for _, value, total in database.execute("select * from t"))
    print(mode, database.execute("select count(*) from t").fetchone())
PY
}

copies() {
  python3 - <<'PY'
import os
os.mkdir("files")
with open("files/sparse", "wb") as f:
    f.truncate(50_000_000)
    f.seek(20_000_000)
    f.write(os.urandom(300_000))
with open("files/weights", "wb") as f:
    for i in range(200_000):
        f.write(bytes((i * i >> 8 & 255, 60 + i % 3)))
os.link("files/weights", "files/linked")
os.symlink("weights", "files/symbolic")
os.setxattr("files/weights", "user.note", b"kept")
PY
  "$binary" sync . || [ $? -eq 7 ]
  "$binary" ls . | grep -q packed
  for flags in -aHX -aHXS; do
    rm -rf "$here/out" back
    rsync $flags files/ "$here/out/"
    rsync $flags "$here/out/" back/
    diff -r files "$here/out" && diff -r files back
  done
  tar --xattrs -S -cf "$here/out.tar" files
  mkdir unpacked
  tar --xattrs -xf "$here/out.tar" -C unpacked
  diff -r files unpacked/files
  cp --sparse=always files/weights copy && cmp copy files/weights
  cp files/sparse copy && cmp copy files/sparse
}

# As a user who may open 1,024 files, as most may.
as_user() {
  (ulimit -n 1024 && exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent "$@")
}

many() {
  # git trusts no directory of others.
  install -d -o 65534 -g 65534 many
  # shellcheck disable=SC2016
  as_user bash -c 'cd many && for d in $(seq 100); do mkdir $d && (cd $d && for f in $(seq 1000); do echo $d $f >$f; done); done'
  [ "$(as_user find many -type f | wc -l)" -eq 100000 ]
  [ "$(as_user ls -lR many | grep -c '^-')" -eq 100000 ]
  as_user git -C many init --quiet
  as_user git -C many add .
  [ "$(as_user git -C many status --porcelain | wc -l)" -eq 100000 ]
  as_user git -C many -c user.name=n -c user.email=e commit --quiet --message all
  echo changed >many/7/7
  [ "$(as_user git -C many status --porcelain)" = " M 7/7" ]
  rsync -a many/ "$here/many/"
  [ "$(find "$here/many" -type f -not -path '*/.git/*' | wc -l)" -eq 100000 ]
  [ -z "$(rsync -anic many/ "$here/many/")" ]
  rm -rf "$here/many" many
}

verified() {
  fio --name=v --verify=crc32c --verify_fatal=1 --size=64m "$@"
  rm -f v.*
}

stress() {
  # 3: some stressors are for other file systems.
  stress-ng --temp-path "$PWD" --class filesystem --sequential 1 --timeout "$((seconds / 10 + 1))s" --verify || [ $? -eq 3 ]
}

failed=0
others=
[ "$(id -u)" -ne 0 ] || others=--allow-other
for flags in "" "--no-passthrough"; do
  # shellcheck disable=SC2086
  "$binary" mount "$here/below" "$here/mount" --settle 0 $others $flags
  say "programs on a mount${flags:+ with $flags}"
  step "git clone, gc, fsck" clone
  step "cargo build" build
  step "SQLite" sqlite
  step "rsync, tar, cp" copies
  [ -z "$others" ] || step "100,000 files by another user" many
  step "fio, random" verified --rw=randrw --bsrange=4k-64k --ioengine=psync --fsync=200
  step "fio, sequential, direct" verified --rw=write --bs=1m --ioengine=libaio --direct=1 --iodepth=8
  step "fio, mapped" verified --rw=randwrite --bs=4k --ioengine=mmap
  step "dbench" dbench -t "$seconds" 4
  step "stress-ng" stress
  step "verify" "$binary" verify .
  "$binary" umount "$here/mount" >"$log"
  find "$here/below" -mindepth 1 -maxdepth 1 ! -name .mithril -exec rm -rf {} +
done
exit $failed
