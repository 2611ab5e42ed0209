#!/usr/bin/env bash
# venv.sh [DIR]: prints the path of a Python that has torch, numpy, safetensors, pytest and maturin.
#
# The python3 of the machine if it has them all, else a virtual environment in DIR ($MITHRIL_VENV, or .venv in the
# checkout) with PyTorch but without the gigabytes of CUDA, which a test on a CPU never calls. Idempotent; a minute.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dir=${1:-${MITHRIL_VENV:-$root/.venv}}
torch=2.15.0 cuda=13.2
wanted='import torch, numpy, safetensors.torch, pytest, maturin'

if python3 -c "$wanted" 2>/dev/null; then
  command -v python3
  exit 0
fi
if [ -e "$dir/.complete" ] && "$dir/bin/python" -c "$wanted" 2>/dev/null; then
  echo "$dir/bin/python"
  exit 0
fi
need cc gcc
need readelf binutils
if [ ! -x "$dir/bin/python" ]; then
  python3 -m venv "$dir" 2>/dev/null || {
    # Debian's python3 comes without its venv module.
    say "installing python3-venv"
    as_root apt-get update -qq >/dev/null || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null ||
      die "python3 cannot make virtual environments: install the package python3-venv"
    python3 -m venv "$dir"
  }
fi
say "installing PyTorch $torch without CUDA in $dir"
pip() { "$dir/bin/python" -m pip --disable-pip-version-check -q "$@" >&2; }
pip install --no-deps "torch==$torch" "nvidia-cuda-runtime==$cuda.*" "nvidia-cuda-cupti==$cuda.*" ||
  die "PyTorch $torch cannot be installed: is there a network, and is python3 $(python3 -V | cut -d' ' -f2) supported?"
pip install --no-warn-conflicts typing_extensions filelock sympy networkx jinja2 fsspec numpy 'setuptools>=77.0.3' \
  safetensors pytest maturin
libraries=$(echo "$dir"/lib/python3*/site-packages/torch/lib)
find "$dir"/lib/python3*/site-packages/nvidia \( -name 'libcudart.so.13*' -o -name 'libcupti.so.13*' \) \
  -exec cp -f {} "$libraries/" \;
"$dir/bin/python" "$root/scripts/cuda_stubs.py" "$libraries"
"$dir/bin/python" -c "$wanted; assert (torch.ones(2) + 1).sum() == 4" || die "PyTorch was installed but does not work"
touch "$dir/.complete"
echo "$dir/bin/python"
