"""check_wheel.py refuses wheels that are really wrong, built by zig for each system."""

import subprocess
import zipfile
from pathlib import Path

import pytest
from platforms import check_wheel

ziglang = pytest.importorskip("ziglang")
ZIG = Path(ziglang.__file__).with_name("zig")

EXPORTING = """
#ifdef _WIN32
#  define EXPORT __declspec(dllexport)
int DllMainCRTStartup(void) { return 1; } /* what libc would have */
#else
#  define EXPORT __attribute__((visibility("default")))
#endif
"""
SOURCE = f"""{EXPORTING}
EXPORT void *PyInit__keyupdate(void) {{ return 0; }}
"""
OPENSSL_FROM_OUTSIDE = """
void *SSL_new(void *);
EXPORT void *ku_new(void *context) { return SSL_new(context); }
"""


class System:
    """Where a wheel is for: its name there, and the names of libraries."""

    def __init__(self, target, tag, suffix, library, shared):
        self.target, self.tag, self.suffix = target, tag, suffix
        self.library, self.shared = library, shared.split()


LINUX = System(
    "x86_64-linux-gnu.2.17",
    "manylinux_2_17_x86_64",
    "so",
    "lib{}.so.3",
    "-shared -fPIC -Wl,-soname,{name}",
)
MACOS = System(
    "aarch64-macos",
    "macosx_11_0_arm64",
    "so",
    "lib{}.3.dylib",
    "-shared -Wl,-undefined,dynamic_lookup -Wl,-install_name,{name}",
)
WINDOWS = System("x86_64-windows-gnu", "win_amd64", "pyd", "lib{}-3-x64.dll", "-shared")
SYSTEMS = {"linux": LINUX, "macos": MACOS, "windows": WINDOWS}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]


@pytest.fixture
def compiled(tmp_path):
    """Compile and link a library, and return its bytes."""

    def compile_library(
        system,
        name,
        source,
        *options,
        target=None,
        debug="-s",
        public=False,
        libc=("-nostdlib",),
    ):
        (tmp_path / "source.c").write_text(source)
        command = [ZIG, "cc", "-target", target or system.target, "-O1", debug]
        command += libc  # compiling a libc takes minutes
        command += [] if public else ["-fvisibility=hidden"]
        command += [part.format(name=name) for part in system.shared]
        command += ["-o", tmp_path / name, tmp_path / "source.c", *options]
        subprocess.run(command, check=True, cwd=tmp_path)
        return (tmp_path / name).read_bytes()

    return compile_library


@pytest.fixture
def faults(tmp_path, compiled):
    """Make a wheel with such an extension, and return what is said of it."""

    def check(system, *options, source="", files=None, tag=None, **build):
        built = compiled(
            system, f"_keyupdate.{system.suffix}", SOURCE + source, *options, **build
        )
        contents = {
            "pykeyupdate/__init__.py": b"",
            "pykeyupdate/_keyupdate.pyi": b"",
            "pykeyupdate/py.typed": b"",
            f"pykeyupdate/_keyupdate.{system.suffix}": built,
            "pykeyupdate-1.0.dist-info/METADATA": b"",
        }
        contents.update(files or {})
        path = tmp_path / f"pykeyupdate-1.0-cp313-cp313-{tag or system.tag}.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, data in contents.items():
                if data is not None:
                    wheel.writestr(name, data)
        status = check_wheel.main([path])
        found = list(check_wheel.faults_of_wheel(path))
        assert status == bool(found)
        return found

    return check


@pytest.fixture
def library(tmp_path, compiled):
    """Make a library with an SSL_new(), and return what an extension links."""

    def make(system, stem):
        name = system.library.format(stem)
        options = []
        if system is WINDOWS:
            options = [f"-Wl,--out-implib,{tmp_path / stem}.lib"]
        source = EXPORTING + "EXPORT void *SSL_new(void *c) { return c; }"
        compiled(system, name, source, *options)
        return tmp_path / (f"{stem}.lib" if options else name)

    return make


def test_a_right_one_is_right(system, faults):
    assert faults(system) == []


@pytest.mark.parametrize("stem", ["ssl", "crypto"])
def test_one_that_needs_openssl(system, faults, library, stem):
    found = faults(system, library(system, stem), source=OPENSSL_FROM_OUTSIDE)
    name = system.library.format(stem)
    assert any(f"needs {name}: the only OpenSSL to call is" in f for f in found)
    assert any("imports SSL_new()" in fault for fault in found)


def test_one_that_needs_another_library(system, faults, library):
    found = faults(system, library(system, "z"), source=OPENSSL_FROM_OUTSIDE)
    name = system.library.format("z")
    assert any(f"needs {name}, which not every system has" in f for f in found)


@pytest.mark.parametrize("name", ["linux", "macos"])  # Windows' linker refuses it
def test_one_that_takes_openssl_from_the_process(name, faults):
    found = faults(SYSTEMS[name], source=OPENSSL_FROM_OUTSIDE)
    assert any("imports SSL_new() from whichever OpenSSL" in fault for fault in found)


def test_one_that_exports_more(system, faults):
    (fault,) = faults(system, source="EXPORT int ku_more(void) { return 1; }")
    assert "exports ku_more" in fault


def test_one_with_all_its_functions_visible(faults):
    """What a build without -fvisibility=hidden is."""
    (fault,) = faults(LINUX, source="int ku_more(void) { return 1; }", public=True)
    assert "exports ku_more" in fault


def test_one_without_its_init_function(system, faults):
    found = faults(system, "-DPyInit__keyupdate=PyInit_other")
    assert any("does not export PyInit__keyupdate" in fault for fault in found)


def test_one_with_debug_information(system, faults):
    found = faults(system, debug="-g")
    assert found
    assert all("has debug information" in fault for fault in found)


@pytest.mark.parametrize("name", ["linux", "macos"])  # Windows has no such thing
def test_one_that_searches_a_folder(name, faults):
    (fault,) = faults(SYSTEMS[name], "-Wl,-rpath,/opt/python/lib")
    assert "searches /opt/python/lib for libraries" in fault


def test_one_for_another_machine(system, faults):
    other = {LINUX: "aarch64-linux-gnu.2.17", MACOS: "x86_64-macos"}
    found = faults(system, target=other.get(system, "aarch64-windows-gnu"))
    assert any("is for another machine" in fault for fault in found)


@pytest.mark.parametrize(
    "more", ["", ".manylinux_2_34_x86_64", ".manylinux2014_x86_64"]
)
def test_one_for_a_newer_glibc(faults, more):
    source = "int dlclose(void *); EXPORT int ku_close(void) { return dlclose(0); }"
    tag = LINUX.tag + more
    newer = "x86_64-linux-gnu.2.34"
    found = faults(LINUX, source=source, target=newer, libc=(), tag=tag)
    assert any("asks for glibc 2.34, and the wheel for 2.17" in f for f in found)


def test_one_that_bundles_a_library(system, faults, compiled):
    """As auditwheel, delocate and delvewheel would put it there."""
    name = system.library.format("ssl-0a1b2c3d")
    bundled = compiled(system, name, SOURCE)
    (fault,) = faults(system, files={f"pykeyupdate.libs/{name}": bundled})
    assert fault == f"bundles pykeyupdate.libs/{name}"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"pykeyupdate/_cli/cycle.c": b"int main;"}, "has pykeyupdate/_cli/cycle.c"),
        ({"tests/test_x.py": b""}, "has tests/test_x.py"),
        ({"pykeyupdate/py.typed": None}, "lacks pykeyupdate/py.typed"),
        ({"pykeyupdate/_keyupdate.so": None}, "has 0 extensions"),
        ({"pykeyupdate/_keyupdate.abi3.so": b""}, "has 2 extensions"),
        ({"pykeyupdate/_keyupdate.so": b"text"}, "is no dynamic library"),
    ],
)
def test_one_with_other_files(faults, files, said):
    assert any(said in fault for fault in faults(LINUX, files=files))
