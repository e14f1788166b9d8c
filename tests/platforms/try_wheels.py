"""Install wheels, as they are, in interpreters, and run the demo and tests there.

    python3 tests/platforms/try_wheels.py FOLDER PYTHON...      (a minute for each)

FOLDER has wheels, from zigwheel.py or a release. Each PYTHON gets a virtual environment
of its own, and in it pip chooses the wheel that fits, and builds nothing. The tests are
run without the checkout's package. Prints a table; exits with 1 if anything failed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TESTS = [  # those of what differs from system to system
    "tests/openssl",
    "tests/calls/test_key_update.py",
    "tests/calls/test_renegotiation.py",
    "tests/streams/test_socket_fields.py",
    "tests/streams/test_socket_methods.py",
    "tests/package/test_import_error.py",
    "tests/test_packaging.py",
]
SAY = """
import platform, ssl
from pykeyupdate import _keyupdate
print(platform.python_version(), ssl.OPENSSL_VERSION.split()[1], _keyupdate.__file__)
"""


def install(python, wheels, folder):
    """Make an environment, and return its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = str(Path(folder, "bin", "python"))
    pip = [inside, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-U", "pip"], check=True)
    subprocess.run([*pip, "--group", f"{CHECKOUT}/pyproject.toml:core"], check=True)
    subprocess.run([*pip, "--no-index", "-f", wheels, "pykeyupdate"], check=True)
    return inside


def last_line(command, folder):
    """Run it; return its last line, or what it said if it failed."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        print(done.stdout[-5000:], done.stderr[-5000:])
        return f"FAILED: {(done.stdout.splitlines() or ['nothing said'])[-1]}"
    return done.stdout.splitlines()[-1]


def judge(python, wheels):
    """Return what there is to say of one interpreter."""
    with tempfile.TemporaryDirectory() as work:
        for name in ("tests", "pyproject.toml", "README.md"):
            copy = shutil.copytree if name == "tests" else shutil.copy
            copy(CHECKOUT / name, Path(work, name))
        inside = install(python, wheels, Path(work, "venv"))
        said = last_line([inside, "-c", SAY], work).replace(f"{work}/", "")
        demo = last_line([inside, "-m", "pykeyupdate", "demo"], work)
        tested = last_line([inside, "-m", "pytest", "-q", *TESTS], work)
        return said.split()[:2], demo, re.sub(" in .*", "", tested)


def main(wheels, pythons):
    """Try all; return whether anything failed."""
    rows = []
    for python in pythons:
        try:
            rows.append([python, *judge(python, wheels)])
        except subprocess.CalledProcessError as error:
            rows.append(
                [python, [], f"FAILED: {' '.join(map(str, error.cmd[1:]))}", ""]
            )
    for python, versions, demo, tested in rows:
        print(f"{python} | {' | '.join(versions)} | {demo} | {tested}")
    return any("FAILED" in cell for row in rows for cell in row[2:])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(str(Path(sys.argv[1]).resolve()), sys.argv[2:]))
