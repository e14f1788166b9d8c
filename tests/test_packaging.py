"""The installed package: what its extension needs and exports, and what is shipped.

Wheels are checked by tests/platforms.
"""

from importlib import metadata
from pathlib import Path

from platforms import check_wheel

import pykeyupdate
from pykeyupdate import _keyupdate


def test_extension_needs_no_openssl_and_exports_only_its_init_function():
    built = Path(_keyupdate.__file__).read_bytes()
    binary = check_wheel.reader_of(built)(built)
    assert binary.needs
    assert binary.imports
    assert list(check_wheel.faults_of_extension(binary)) == []


def test_types_are_shipped_and_what_only_developers_run_is_not():
    package = Path(pykeyupdate.__file__).parent
    for name in ("py.typed", "_keyupdate.pyi"):
        assert (package / name).is_file()
    assert not list(package.rglob("*.c"))


def test_distribution_has_no_dependency_of_its_own():
    requires = metadata.requires("pykeyupdate") or []
    assert all("extra ==" in requirement for requirement in requires)
    assert metadata.version("pykeyupdate") == pykeyupdate.__version__
