#!/usr/bin/env bash
# The long tests: the same ones as check.sh runs, with many more rounds.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
need_base
export MITHRIL_TORTURE=1
cargo build --quiet -p mithril-fs
exec cargo test -p mithril-tests -- --nocapture
