#!/usr/bin/env bash
# scripts/aarch64.sh: compiles the engine for 64-bit ARM, where the compiler makes NEON code of the portable kernels, and
# runs the tests of the codec under emulation: every golden encoding decodes there, and what is encoded comes back.
#
# Needs `rustup target add aarch64-unknown-linux-gnu`, aarch64-linux-gnu-gcc and qemu-aarch64 (Debian: qemu-user
# gcc-aarch64-linux-gnu libc6-dev-arm64-cross); says what is missing and ends with 78 then.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

target=aarch64-unknown-linux-gnu
missing() {
  echo "not run on aarch64: $*"
  exit 78
}
command -v aarch64-linux-gnu-gcc >/dev/null || missing "install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross"
command -v qemu-aarch64 >/dev/null || missing "install qemu-user"
[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || missing "rustup target add $target"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
# Emulation is some twenty times slower.
export PROPTEST_CASES=${PROPTEST_CASES:-16}
cargo test --locked -p mithril-engine --lib --target $target -- codec:: quantize:: format:: checkpoint::
cargo test --locked -p mithril-engine --test golden_checkpoints --target $target
