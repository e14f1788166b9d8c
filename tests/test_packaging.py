"""The built extension: what it needs, what it exports, and what is shipped."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

import pykeyupdate
from pykeyupdate import _keyupdate

elf = pytest.mark.skipif(sys.platform != "linux", reason="ELF only")


@pytest.fixture
def dynamic():
    from elftools.elf.elffile import ELFFile

    with open(_keyupdate.__file__, "rb") as file:
        yield ELFFile(file)


@elf
def test_extension_needs_no_openssl(dynamic):
    tags = dynamic.get_section_by_name(".dynamic").iter_tags()
    needed = {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}
    assert needed
    assert not {name for name in needed if "ssl" in name or "crypto" in name}


@elf
def test_extension_imports_nothing_of_openssl(dynamic):
    symbols = dynamic.get_section_by_name(".dynsym").iter_symbols()
    undefined = {s.name for s in symbols if s.entry.st_shndx == "SHN_UNDEF"}
    assert "dlsym" in undefined
    assert not {
        n for n in undefined if n.startswith(("SSL_", "ERR_", "BIO_", "OPENSSL_"))
    }


@elf
def test_extension_exports_only_its_init_function(dynamic):
    exported = {
        symbol.name
        for symbol in dynamic.get_section_by_name(".dynsym").iter_symbols()
        if symbol.entry.st_shndx != "SHN_UNDEF"
        and symbol.entry.st_info.bind in ("STB_GLOBAL", "STB_WEAK")
    }
    assert exported - {"_init", "_fini"} == {"PyInit__keyupdate"}


def test_types_are_shipped_and_what_only_developers_run_is_not():
    package = Path(pykeyupdate.__file__).parent
    for name in ("py.typed", "_keyupdate.pyi"):
        assert (package / name).is_file()
    assert not list(package.rglob("*.c"))


def test_distribution_has_no_dependency_of_its_own():
    requires = metadata.requires("pykeyupdate") or []
    assert all("extra ==" in requirement for requirement in requires)
    assert metadata.version("pykeyupdate") == pykeyupdate.__version__
