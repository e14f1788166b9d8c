"""build_twice.py: what a source archive must have, and must not."""

import io
import sys
import tarfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if not (HERE.parents[1] / ".git").exists():
    pytest.skip("no checkout", allow_module_level=True)


@pytest.fixture
def programs(monkeypatch):
    """Import them as they import each other."""
    monkeypatch.syspath_prepend(HERE)
    import build_twice
    import zigwheel

    yield build_twice, zigwheel
    for name in ("build_twice", "zigwheel", "check_wheel"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda names: names, []),
        (lambda names: names - {"ext/module.c"}, ["lacks ext/module.c"]),
        (lambda names: names - {".gitignore"}, []),
        (
            lambda names: names | {"build/module.o"},
            ["has build/module.o, which no user needs"],
        ),
        (
            lambda names: names | {".ci/run"},
            ["has .ci/run, which no user needs"],
        ),
        (lambda names: names | {"PKG-INFO"}, []),
    ],
)
def test_a_source_archive_has_what_a_user_needs(programs, tmp_path, change, faults):
    build_twice, zigwheel = programs
    tracked = {
        name
        for name in zigwheel.tracked_files()
        if not name.startswith(build_twice.ONLY_HERE)
    }
    path = tmp_path / "pykeyupdate-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in change(tracked):
            archive.addfile(tarfile.TarInfo(f"pykeyupdate-1.0/{name}"), io.BytesIO())
    assert list(build_twice.faults_of_source_archive(path)) == faults
