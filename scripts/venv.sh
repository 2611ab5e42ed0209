#!/usr/bin/env bash
# scripts/venv.sh [DIR]: a Python with PyTorch, safetensors, NumPy, pytest and maturin; prints its path last.
#
# A python3 that has all of them is used as it is. One that has PyTorch and safetensors gets the rest in a virtual
# environment that sees its packages. Else PyTorch is installed from PyPI, without the gigabytes of CUDA libraries that
# its wheel asks for: stubs take their place, since nothing here calls them. DIR is $MITHRIL_VENV or .venv if not given.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# How the environment is made: one of another version is made anew.
LAYOUT=1
dir=${1:-${MITHRIL_VENV:-$ROOT/.venv}}
python="$dir/bin/python"

# torch_for PYTHON: the PyTorch that is installed for it: the last that has wheels for its version, or nothing.
torch_for() {
  "$1" -c 'import sys; v = sys.version_info; print("2.15.0" if v >= (3, 11) else "2.14.1" if v >= (3, 10) else "")'
}
has() { "$1" -c "import ${2// /, }" >/dev/null 2>&1; }
has_all() { has "$1" "torch numpy safetensors.torch pytest" && "$1" -m maturin --version >/dev/null 2>&1; }
pip() { "$python" -m pip --disable-pip-version-check --quiet install --no-warn-conflicts "$@"; }

torch=''
[ ! -x "$python" ] || torch=$(torch_for "$python")
if [ -e "$dir/.mithril-$LAYOUT-$torch" ] && has_all "$python"; then
  echo "$python"
  exit 0
fi
if command -v python3 >/dev/null && has_all python3; then
  command -v python3
  exit 0
fi
need_python >&2 || exit 1

exec 3>&1 1>&2
has_torch=''
! has python3 "torch safetensors.torch numpy" || has_torch=1
base=python3 hint='put a later python3 first in PATH'
[ ! -x "$python" ] || base=$python hint="delete $dir, so that python3 makes it anew"
torch=$(torch_for "$base")
[ -n "$torch$has_torch" ] || die "PyTorch needs Python 3.10 or later, and $base is $("$base" -V | cut -d ' ' -f 2): $hint"
[ -x "$python" ] || python3 -m venv "$dir"
if [ -n "$has_torch" ]; then
  # Also the packages of a virtual environment, which --system-site-packages would not show.
  python3 -c 'import site, sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' \
    >"$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/outer.pth"
  echo "using the PyTorch of $(command -v python3)"
  pip pytest maturin
else
  need_compiler && package binutils command -v readelf || exit 1
  echo "installing PyTorch $torch in $dir; this takes a few minutes"
  need_space "$dir" 4500
  pip --no-deps "torch==$torch"
  pip typing_extensions filelock sympy networkx jinja2 fsspec numpy 'setuptools>=77.0.3' safetensors pytest maturin
  "$python" "$ROOT/scripts/cuda_stubs.py"
fi
has_all "$python" || die "$python cannot import all of torch, numpy, safetensors and pytest, or has no maturin"
touch "$dir/.mithril-$LAYOUT-$torch"
echo "$python" >&3
