"""Downloads real models from the Hugging Face hub for the tests that want them, and verifies what came.

usage: download_hf_fixtures.py (--all | --list | MODEL...) [--out DIR] [--lock FILE]

    python="$(scripts/venv.sh)"
    "$python" -m pip install huggingface_hub
    "$python" scripts/download_hf_fixtures.py --all
    cargo test --release -p mithril-engine --test hub_models -- --ignored --nocapture

DIR is $MITHRIL_HF_FIXTURES, or target/hf-fixtures. FILE is scripts/hf_fixtures.lock.json: for each model the revision
(a commit of the hub) and for each file its length and SHA-256. What is locked is downloaded at that revision and has to
match; another byte is an error, and the file is removed. What is not locked yet is compared with the checksum that the
hub itself gives for large files, and written to FILE: commit it. So the first download is trusted, and no later one.

What is there and matches is not downloaded again. Nothing that is downloaded is ever executed or unpickled.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Small ones, of every container and type of weights that the hub has.
MODELS = {
    # fp32, as safetensors and as a torch archive: 91 MB each.
    "sentence-transformers/all-MiniLM-L6-v2": ["model.safetensors", "pytorch_model.bin"],
    # fp32, saved in 2020: 18 MB.
    "prajjwal1/bert-tiny": ["pytorch_model.bin"],
    # bf16: 269 MB.
    "HuggingFaceTB/SmolLM2-135M": ["model.safetensors"],
}


class Failure(Exception):
    """What went wrong, in words for people."""


def hub():
    try:
        import huggingface_hub
    except ImportError:
        raise Failure(f"huggingface_hub is missing: run '{sys.executable} -m pip install huggingface_hub'") from None
    return huggingface_hub


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe(path):
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def reached(action, call, *arguments, **options):
    """Calls the hub; that it cannot be reached is no traceback."""
    try:
        return call(*arguments, **options)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise Failure(
            f"cannot {action} from {endpoint} ({reason}); is there a network, and is HF_HUB_OFFLINE unset?"
        ) from error


def fetch_model(name, files, locked, out):
    """Downloads the files of a model that are not there, and returns what is to be locked."""
    folder = out / name.replace("/", "--")
    # A revision is only followed where the lock has none.
    revision = locked.get("revision")
    known = locked.get("files", {})
    if all((folder / file).exists() and known.get(file) == describe(folder / file) for file in files):
        print(f"{name}: all files are there and match")
        return locked
    api = hub().HfApi()
    info = reached(f"look up {name}", api.model_info, name, revision=revision or "main", files_metadata=True)
    revision = revision or info.sha
    said = {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs}
    found = dict(known)
    for file in files:
        print(f"{name}: {file} of {revision[:12]}", flush=True)
        arguments = {"repo_id": name, "filename": file, "revision": revision, "local_dir": folder}
        # A file that is there but does not match is fetched anew.
        arguments["force_download"] = (folder / file).exists() and known.get(file) != describe(folder / file)
        path = pathlib.Path(reached(f"download {name}/{file}", hub().hf_hub_download, **arguments))
        here = describe(path)
        for what, expected in (("the lock", known.get(file, {}).get("sha256")), ("the hub", said.get(file))):
            if expected and here["sha256"] != expected:
                path.unlink()
                raise Failure(
                    f"{name}/{file} has SHA-256 {here['sha256']}, and {what} says {expected}: it was removed. "
                    "Download it again; if that does not help, somebody changed it"
                )
        if file in known and known[file]["bytes"] != here["bytes"]:
            raise Failure(f"{name}/{file} has {here['bytes']} bytes, and the lock says {known[file]['bytes']}")
        found[file] = here
    return {"revision": revision, "files": found}


def read_lock(path):
    return json.loads(path.read_text()) if path.exists() else {}


def write_lock(path, lock):
    text = json.dumps(lock, indent=2, sort_keys=True) + "\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        print(f"{path} has new checksums: look at them, and commit it")


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(description="Downloads real models for the tests that want them.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="which ones; --list names them")
    parser.add_argument("--all", action="store_true", help="all of them, some 500 MB")
    parser.add_argument("--list", action="store_true", help="say which there are, and what is locked")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path(os.environ.get("MITHRIL_HF_FIXTURES", target / "hf-fixtures")),
    )
    parser.add_argument("--lock", type=pathlib.Path, default=ROOT / "scripts/hf_fixtures.lock.json")
    arguments = parser.parse_args()
    lock = read_lock(arguments.lock)
    if arguments.list:
        for name, files in MODELS.items():
            locked = lock.get(name, {})
            for file in files:
                checksum = locked.get("files", {}).get(file, {}).get("sha256", "not locked yet")
                print(f"{name} {locked.get('revision', 'main')[:12]} {file} {checksum}")
        return 0
    wanted = list(MODELS) if arguments.all else arguments.models
    if not wanted:
        parser.error("name models, or --all")
    for name in wanted:
        if name not in MODELS:
            parser.error(f"{name} is not among the models; --list names them")
    try:
        for name in wanted:
            lock[name] = fetch_model(name, MODELS[name], lock.get(name, {}), arguments.out)
            # After each: what was downloaded is locked even if the next one fails.
            write_lock(arguments.lock, lock)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    print(f"the models are in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
