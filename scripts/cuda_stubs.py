"""cuda_stubs.py TORCH_LIB

PyTorch's wheel links the libraries of CUDA, which are gigabytes and which a machine without a GPU never calls. This
writes libraries of the same names whose functions return 0, with the symbol versions that the dynamic linker asks
for, so that `import torch` works without them.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

LINKERS = (
    "libtorch_cuda.so",
    "libtorch_nvshmem.so",
    "libtorch_cuda_linalg.so",
    "libc10_cuda.so",
    "libcaffe2_nvrtc.so",
    "libtorch_cpu.so",
    "libtorch_python.so",
)
STUBS = (
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcudnn.so.9",
    "libcufft.so.12",
    "libcufile.so.0",
    "libcusolver.so.12",
    "libcusparse.so.12",
    "libcusparseLt.so.0",
    "libnccl.so.2",
    "libnvrtc.so.13",
    "libnvshmem_host.so.3",
)
# How the functions of CUDA's libraries are named: those that are asked for without a version.
CUDA_NAME = re.compile(r"(cu[A-Z]|cu[a-z]+[A-Z]|nccl|nv|cudnn)")


def output_lines(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def needed_versions(library):
    """Symbol versions that `library` asks of each stub."""
    current = None
    for line in output_lines("readelf", "-V", "--wide", str(library)):
        if match := re.search(r"File: (\S+)", line):
            current = match[1]
        if (match := re.search(r"Name: (\S+)\s+Flags", line)) and current in STUBS:
            yield current, match[1]


def undefined_symbols(library):
    """Symbols that `library` does not define, with the version that it asks for, if any."""
    for line in output_lines("nm", "-D", "--undefined-only", str(library)):
        kind, symbol = line.split()[:2]
        if kind == "U":
            name, _, version = symbol.partition("@")
            yield name, version.lstrip("@")


def assembly(names):
    return "".join(f".globl {n}\n.type {n},@function\n{n}: xorl %eax,%eax\nret\n" for n in names)


def main(libraries):
    versions = collections.defaultdict(set)
    symbols = collections.defaultdict(set)
    for name in LINKERS:
        for stub, version in needed_versions(libraries / name):
            versions[stub].add(version)
        for symbol, version in undefined_symbols(libraries / name):
            symbols[version].add(symbol)
    defined = set()
    for path in libraries.iterdir():
        if ".so" in path.name and path.name not in STUBS:
            for line in output_lines("nm", "-D", "--defined-only", str(path)):
                defined.add(line.split()[-1].split("@")[0])
    unversioned = sorted(name for name in symbols[""] - defined if CUDA_NAME.match(name))
    with tempfile.TemporaryDirectory() as scratch:
        source_path, map_path = pathlib.Path(scratch, "stub.s"), pathlib.Path(scratch, "stub.map")
        for stub in STUBS:
            source, script = "", ""
            for version in sorted(versions[stub]):
                names = sorted(symbols[version])
                source += assembly(names)
                script += f"{version} {{ global: {' '.join(n + ';' for n in names)} }};\n"
            if stub == STUBS[0]:
                source += assembly(unversioned)
                script += f"UNVERSIONED {{ global: {' '.join(n + ';' for n in unversioned)} }};\n"
            source_path.write_text(source + '.section .note.GNU-stack,"",@progbits\n')
            map_path.write_text(script)
            command = ["cc", "-shared", "-fPIC", str(source_path), f"-Wl,-soname,{stub}", "-o", str(libraries / stub)]
            subprocess.run(command + ([f"-Wl,--version-script,{map_path}"] if script else []), check=True)
    print(f"{len(STUBS)} stub libraries in {libraries}", file=sys.stderr)


main(pathlib.Path(sys.argv[1]))
