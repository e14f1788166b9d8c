"""Build the source archive and the wheel in two folders: they must be the same bytes.

    PYTHON tests/platforms/build_twice.py FOLDER      (half a minute)

FOLDER gets the archives. The wheel is checked by check_wheel.py, and the source archive
must have what git has, but for what only this repository needs. PYTHON needs the
packages of the group `wheels`.

The two folders have names of different lengths, and their files different times. Not
made the same: the modes of files, where one builds with another umask; compilers.
"""

import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import check_wheel
from zigwheel import copy_sources, tracked_files

ONLY_HERE = (".github/ISSUE_TEMPLATE/", ".github/workflows/", ".github/dependabot.yml")
ONLY_HERE += (".ci/", ".clang-format", ".gitignore", ".readthedocs.yaml")
MADE = ("PKG-INFO", "setup.cfg", "pykeyupdate.egg-info/")


def build(folder):
    """Build there; return the bytes of each archive by its name."""
    copy_sources(folder)
    command = [sys.executable, "-m", "build", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return {path.name: path.read_bytes() for path in Path(folder, "dist").iterdir()}


def faults_of_source_archive(path):
    """Yield what it lacks, and what nobody needs."""
    with tarfile.open(path) as archive:
        members = [member.name for member in archive if member.isfile()]
    names = {name.partition("/")[2] for name in members}
    wanted = {name for name in tracked_files() if not name.startswith(ONLY_HERE)}
    yield from (f"lacks {name}" for name in sorted(wanted - names))
    more = sorted(name for name in names - wanted if not name.startswith(MADE))
    yield from (f"has {name}, which no user needs" for name in more)


def main(folder):
    """Build twice, compare and check; return how much is wrong."""
    faults = []
    with tempfile.TemporaryDirectory() as work:
        first = build(Path(work, "a"))
        time.sleep(2)  # the step of times in a zip file
        second = build(Path(work, "another", "and longer"))
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, data in first.items():
        path = Path(folder, name)
        path.write_bytes(data)
        same = second.get(name) == data
        print(f"{name}: {'the same' if same else 'NOT THE SAME'} twice")
        faults += [] if same else [name]
        if name.endswith(".tar.gz"):
            found = list(faults_of_source_archive(path))
            print("".join(f"    {fault}\n" for fault in found), end="")
            faults += found
    wheels = sorted(Path(folder, name) for name in first if name.endswith(".whl"))
    return len(faults) + check_wheel.main(wheels)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(1 if main(sys.argv[1]) else 0)
