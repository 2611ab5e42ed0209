"""A mount for each test, always taken down.

MITHRIL_FS_BIN names the binary; without it, the workspace's debug build is used. With MITHRIL_TEST_PLAIN=1 the tests
run on a plain directory instead: they have to pass there too, or it is not the file system that they test.
"""

import ctypes
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import warnings

import pytest

ROOT = pathlib.Path(__file__).parents[2]
IS_PLAIN = os.environ.get("MITHRIL_TEST_PLAIN", "0") not in ("", "0")
IS_CI = os.environ.get("MITHRIL_CI", "0") not in ("", "0")
COMMAND_LIMIT_S = 120


def require(condition, reason):
    """Skips loudly, or fails where everything has to run."""
    if not condition:
        if IS_CI:
            pytest.fail(f"cannot run here: {reason}")
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter):
    """Names what did not run at the end: what is printed while a test runs is captured, and shown only if it fails."""
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"!!! DID NOT RUN: {report.nodeid}: {str(reason).removeprefix('Skipped: ')}")


def binary():
    asked = os.environ.get("MITHRIL_FS_BIN")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = pathlib.Path(asked) if asked else target / "debug" / "mithril-fs"
    if not asked and not IS_PLAIN:
        # A test of yesterday's binary would be worse than none.
        subprocess.run(["cargo", "build", "--quiet", "--workspace", "--bins"], cwd=ROOT, check=True)
    return path


def is_mounted(path):
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4].encode().decode("unicode_escape") == str(path) for line in mounts)


class Directory:
    """A directory as its user sees it, and the commands that treat it."""

    is_plain = False

    def __init__(self, path, command):
        self.path, self.command = path, command
        self.flags = ["--settle", "0"]

    def run(self, *arguments, check=True):
        done = subprocess.run([self.command, *arguments], capture_output=True, text=True, timeout=COMMAND_LIMIT_S)
        if check:
            assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def mount(self):
        self.run("mount", self.path, *self.flags)
        assert is_mounted(self.path)

    def sync(self):
        return self.run("sync", self.path)

    def status(self):
        return json.loads(self.run("status", "--json", self.path).stdout)

    def states(self):
        """plain or packed, by path. A path that is not UTF-8 comes as numbers."""
        files = json.loads(self.run("ls", "--json", self.path).stdout)
        decode = lambda path: path if isinstance(path, str) else os.fsdecode(bytes(path))
        return {decode(file["path"]): file["state"] for file in files}

    def expect_packed(self, *names):
        states = self.states()
        assert {name: states.get(name) for name in names} == dict.fromkeys(names, "packed")

    def remount(self):
        """Unmounts, waits for the daemon, forgets what the kernel read, and mounts again."""
        pid = self.status()["pid"]
        self.run("umount", self.path)
        assert not is_mounted(self.path)
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{pid}") and not zombie(pid):
            assert time.monotonic() < deadline, f"the daemon {pid} goes on"
            time.sleep(0.02)
        drop_caches()
        self.mount()

    def take_down(self):
        if not is_mounted(self.path):
            return
        try:
            done = self.run("umount", self.path, check=False)
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode != 0:
            for force in (["umount", "-l", self.path], ["fusermount3", "-uz", self.path]):
                if subprocess.run(force, capture_output=True).returncode == 0:
                    break


class PlainDirectory(Directory):
    """The same without a mount."""

    is_plain = True

    def mount(self):
        pass

    def sync(self):
        os.sync()

    def expect_packed(self, *names):
        missing = [name for name in names if not (self.path / name).exists()]
        assert not missing

    def remount(self):
        drop_caches()


def zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] in "ZX"
    except OSError:
        return True


def drop_caches():
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        warnings.warn(f"the page cache was not dropped ({error}): what is read next may come from it")


@pytest.fixture(scope="session")
def mithril_fs():
    return binary()


@pytest.fixture
def scratch():
    """A directory on a file system that can keep packed files, with room for big ones."""
    parent = os.environ.get("MITHRIL_TEST_DIR") or "/var/tmp"
    path = pathlib.Path(tempfile.mkdtemp(prefix="mithril-py-", dir=parent)).resolve()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def directory(scratch, mithril_fs):
    """A mounted directory without files."""
    path = scratch / "checkpoints"
    path.mkdir()
    if not IS_PLAIN:
        require(os.access("/dev/fuse", os.R_OK | os.W_OK), "/dev/fuse cannot be opened")
        require(os.geteuid() == 0 or shutil.which("fusermount3"), "fusermount3 is missing: install fuse3")
    found = (PlainDirectory if IS_PLAIN else Directory)(path, mithril_fs)
    try:
        found.mount()
        if not IS_PLAIN:
            reason = found.status()["packing"]
            require(reason is None, f"{path} cannot keep packed files: {reason}")
        yield found
    finally:
        found.take_down()


@pytest.fixture
def copy(scratch):
    """A directory outside the mount."""
    path = scratch / "copy"
    path.mkdir()
    return path
