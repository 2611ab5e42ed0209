#!/usr/bin/env bash
# scripts/bench_codec.sh [OPTION...] [FILE...]: ratio and speed of the codec beside those of its peers, on real tensors.
#
# FILEs are safetensors, each compressed alone; `--pair OLD NEW` compresses NEW against OLD. With none, a small GPT is
# trained first (scripts/bench/training_run.py, some minutes); what it wrote is used again later. One thread, all in
# memory, every round trip compared; `compare.py --help` has the other options (--rounds, --only, --ratios).
#
# --no-peers leaves the peers out, --self-test checks the measuring itself in seconds, without peers and PyTorch.
# What is installed, trained and built goes to ${MITHRIL_BENCH_DIR:-target/bench-codec}.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# As they were when their interfaces were looked up.
PEERS=(zstandard==0.25.0 zipnn==0.5.4 openzl==0.3.0 z4ai==0.2.0 blosc2==4.14.1 pcodec==1.1.0)
cache=${MITHRIL_BENCH_DIR:-$CARGO_TARGET_DIR/bench-codec}
scripts="$ROOT/scripts/bench"
export PYTHONDONTWRITEBYTECODE=1

# make_peers PYTHON: an environment with the peers; its Python is at $cache/peers/bin/python. It sees the packages of
# PYTHON, whose PyTorch zipnn wants.
make_peers() {
  local python="$cache/peers/bin/python" peer error
  if [ ! -x "$python" ]; then
    "$1" -m venv "$cache/peers"
    "$1" -c 'import sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' \
      >"$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/outer.pth"
  fi
  for peer in "${PEERS[@]}"; do
    "$python" - "${peer%==*}" "${peer#*==}" 2>/dev/null <<'PY' && continue
import importlib.metadata, sys
sys.exit(importlib.metadata.version(sys.argv[1]) != sys.argv[2])
PY
    local flags=()
    # It names all of PyTorch, with CUDA, as what it needs.
    [ "${peer%==*}" != zipnn ] || flags=(--no-deps)
    error=$("$python" -m pip --disable-pip-version-check --quiet install --no-warn-conflicts "${flags[@]}" "$peer" 2>&1) ||
      note "$peer cannot be installed and is left out: $(tail -n 1 <<<"$error")"
  done
}

peers=1 self_test='' data='' options=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-peers) peers='' ;;
    --self-test) self_test=1 ;;
    --pair)
      [ $# -ge 3 ] || die "usage: --pair OLD NEW"
      options+=(--pair "$2" "$3") data=1
      shift 2
      ;;
    --only | --rounds)
      [ $# -ge 2 ] || die "$1 needs a value"
      options+=("$1" "$2")
      shift
      ;;
    -*) options+=("$1") ;;
    *) options+=(--file "$1") data=1 ;;
  esac
  shift
done

bench=${MITHRIL_CODEC_BENCH:-}
if [ -z "$bench" ]; then
  need_rust
  cargo build --quiet --release --locked --package mithril-engine --example codec_bench --manifest-path "$ROOT/Cargo.toml"
  bench="$CARGO_TARGET_DIR/release/examples/codec_bench"
fi
if [ -n "$self_test" ]; then
  exec python3 "$scripts/self_test.py" "$bench"
fi

mkdir -p "$cache"
python=python3
if [ -n "$peers" ] || [ -z "$data" ]; then
  python=$("$ROOT/scripts/venv.sh" | tail -n 1)
fi
if [ -z "$data" ]; then
  "$python" "$scripts/training_run.py" "$cache/run"
  options+=(--run "$cache/run")
fi
if [ -n "$peers" ]; then
  make_peers "$python"
  options+=(--peers "$cache/peers/bin/python")
fi
exec "$python" "$scripts/compare.py" "$bench" "${options[@]}"
