"""Build the wheels of this interpreter's version for four kinds of Linux, with zig.

    PYTHON tests/platforms/zigwheel.py FOLDER      (four minutes; one when zig is warm)

FOLDER gets the wheels for glibc 2.17 (manylinux_2_17) and musl 1.2 (musllinux_1_2), on
x86_64 and aarch64. Each is checked by check_wheel.py. PYTHON gives the version and its
headers, and needs the packages of the group `wheels`:

    python3.13 -m venv venv && venv/bin/python -m pip install -U pip
    venv/bin/python -m pip install --group wheels
    venv/bin/python tests/platforms/zigwheel.py wheelhouse

A release is built by cibuildwheel (.github/workflows/wheels.yml), in images that have
each system's own compiler. This is for machines without containers: zig is a C compiler
with the headers of every libc, and the versions of their functions. README.md in this
folder says where these wheels ran.

Facts. CPython's headers are the same on both machines and with both libcs, but for
pyconfig.h, which differs in nothing that an extension uses. Debian's are in two
folders, and include each other by the name of the machine. The extension has no such
name (`_keyupdate.so`): every CPython on Linux loads that, and which name one for musl
has depends on its version.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import check_wheel

CHECKOUT = Path(__file__).resolve().parents[2]
TARGETS = {  # zig's name of it, by the wheel's
    "manylinux_2_17_x86_64": "x86_64-linux-gnu.2.17",
    "manylinux_2_17_aarch64": "aarch64-linux-gnu.2.17",
    "musllinux_1_2_x86_64": "x86_64-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-linux-musl",
}


def zig():
    """Return zig's program: build isolation hides the module from ``python -m``."""
    import ziglang

    return Path(ziglang.__file__).with_name("zig")


def copy_headers(folder):
    """Copy Python's headers, with the pyconfig.h that Debian keeps elsewhere."""
    headers = Path(sysconfig.get_path("include"))
    shutil.copytree(headers, folder)
    machine = sysconfig.get_config_var("MULTIARCH") or ""
    config = headers.parent / machine / headers.name / "pyconfig.h"
    if config.exists():
        shutil.copy(config, folder)


def build(platform, work):
    """Build one wheel in this folder, and return its path."""
    copy_sources(work / "sources")
    copy_headers(work / "include")
    compiler = f"{zig()} cc -target {TARGETS[platform]}"
    environment = {
        **os.environ,
        "CC": compiler,
        "CFLAGS": f"-I{work / 'include'}",
        "LDSHARED": f"{compiler} -shared -Wl,-S",  # zig's glibc comes with -g
        "SETUPTOOLS_EXT_SUFFIX": ".so",
    }
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", work]
    command += [f"--config-settings=--build-option=--plat-name={platform}"]
    subprocess.run([*command, work / "sources"], env=environment, check=True)
    (wheel,) = work.glob("*.whl")
    return wheel


def tracked_files():
    """Return the names of the files that git has, or would take."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=CHECKOUT, check=True, capture_output=True).stdout
    return [name for name in names.decode().split("\0") if (CHECKOUT / name).is_file()]


def copy_sources(folder):
    """Copy them, so that nothing of an earlier build comes along."""
    for name in tracked_files():
        target = Path(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((CHECKOUT / name).read_bytes())


def main(folder):
    """Build all; return how many are wrong."""
    wheels = []
    Path(folder).mkdir(parents=True, exist_ok=True)
    for platform in TARGETS:
        with tempfile.TemporaryDirectory() as work:
            wheels.append(shutil.copy(build(platform, Path(work)), folder))
    return check_wheel.main(wheels)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(1 if main(sys.argv[1]) else 0)
