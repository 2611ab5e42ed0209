"""Makes a CUDA build of PyTorch importable on a machine without CUDA libraries: run it with that PyTorch's Python.

Two small libraries that PyTorch calls when it is imported are installed (the CUDA runtime and CUPTI). For each other
library that PyTorch's own ones are linked with and that is nowhere to be found, a stub takes its place beside them: a
library of the same name that has the functions with the same symbol versions, all of which return an error. Without a
GPU none is called.
"""

import collections
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile

SITE = pathlib.Path(sysconfig.get_paths()["purelib"])
LIBRARIES = SITE / "torch" / "lib"
REAL = {"cudart": "nvidia-cuda-runtime", "cupti": "nvidia-cuda-cupti"}
# What every one of the CUDA libraries returns for an unknown error; none of them takes it for success.
RETURNED = 999


def lines(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def missing_libraries():
    """The libraries that PyTorch's are linked with and that the loader does not find."""
    found = set()
    for path in sorted(LIBRARIES.glob("*.so*")):
        listing = subprocess.run(["ldd", path], capture_output=True, text=True).stdout.splitlines()
        found |= {line.split()[0] for line in listing if line.endswith("=> not found")}
    return found


def install_real_ones(names):
    wanted = [package for word, package in REAL.items() if any(word in name for name in names)]
    if not wanted:
        return
    # The metadata may ask for "cuda-toolkit[...]==13.2.2": the runtime has the same first two numbers.
    asked = " ".join(importlib.metadata.requires("torch") or [])
    version = re.search(r"cuda-toolkit\S*==(\d+\.\d+)", asked)
    pins = [f"{package}=={version[1]}.*" if version else package for package in wanted]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *pins], check=True)
    for path in (SITE / "nvidia").rglob("*.so.*"):
        if path.name in names:
            (LIBRARIES / path.name).write_bytes(path.read_bytes())


def wanted_symbols(names):
    """By library and version, the functions that PyTorch wants of the missing libraries; '' is no version."""
    versions, by_version, loose, defined = {}, collections.defaultdict(set), set(), set()
    for path in sorted(LIBRARIES.glob("*.so*")):
        library = None
        for line in lines("readelf", "--version-info", "--wide", path):
            if file := re.search(r"File: (\S+)", line):
                library = file[1]
            elif (name := re.search(r"Name: (\S+)\s+Flags", line)) and library in names:
                versions[name[1]] = library
        for line in lines("nm", "--dynamic", path):
            *_, kind, symbol = line.split()
            name, _, version = symbol.partition("@")
            if kind != "U":
                defined.add(name)
            elif version:
                by_version[version.lstrip("@")].add(name)
            else:
                loose.add(name)
    wanted = collections.defaultdict(dict)
    for version, library in versions.items():
        wanted[library][version] = by_version[version]
    # Nothing says which library a function without version is of, and the loader does not ask: any will do.
    cuda = {name for name in loose - defined if re.match(r"(cu[A-Z]|cu[a-z]+[A-Z]|nccl|nv)", name)}
    wanted[sorted(names)[0]][""] = cuda
    return wanted


def write_stub(library, versions, directory):
    source, script = directory / "stub.c", directory / "stub.map"
    functions = sorted({name for names in versions.values() for name in names})
    source.write_text("".join(f"long {name}(void) {{ return {RETURNED}; }}\n" for name in functions))
    script.write_text(
        "".join(
            f"{version or 'NO_VERSION'} {{ global: {''.join(f'{name};' for name in sorted(names))} }};\n"
            for version, names in sorted(versions.items())
        )
    )
    command = ["cc", "-shared", "-fPIC", "-w", "-fno-builtin", source, f"-Wl,-soname,{library}"]
    command += ["-o", LIBRARIES / library] + ([f"-Wl,--version-script,{script}"] if versions else [])
    subprocess.run(command, check=True)


install_real_ones(missing_libraries())
absent = {name for name in missing_libraries() if name != "libcuda.so.1"}
if absent:
    wanted = wanted_symbols(absent)
    with tempfile.TemporaryDirectory() as temporary:
        for library in sorted(absent):
            write_stub(library, wanted[library], pathlib.Path(temporary))
check = "import torch; assert (torch.ones(2) + 1).sum() == 4 and not torch.cuda.is_available(); print(torch.__version__)"
print("PyTorch", lines(sys.executable, "-c", check)[0], f"works with {len(absent)} stub libraries")
