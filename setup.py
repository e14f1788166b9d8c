"""The extension, and archives that are the same bytes wherever they are built.

Everything else is in pyproject.toml. No OpenSSL headers and no -lssl: libssl is bound
at run time, to the one that the interpreter's ssl module uses (ext/openssl/libssl.c). A
C compiler is all it takes.
"""

import gzip
import io
import os
import platform
import sys
import tarfile
from glob import glob
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

if platform.python_implementation() != "CPython":
    sys.exit("pykeyupdate works on CPython only: it reads CPython's own ssl objects")

# The time of every file in a wheel and a source archive: what the caller sets (the
# workflows set the commit's), or a constant, because a build has no time of its own.
SECONDS = int(os.environ.setdefault("SOURCE_DATE_EPOCH", "1767225600"))  # 2026

if sys.platform == "win32":
    compile_args = ["/W4", "/guard:cf", "/Brepro"]
    link_args = ["/guard:cf", "/Brepro"]
    libraries = ["ws2_32"]
else:
    compile_args = ["-std=c11", "-O2", "-pthread", "-fvisibility=hidden"]
    compile_args += ["-Wall", "-Wextra"]
    link_args = ["-pthread"]
    libraries = []
    # Python's build hands its -g on. That names the folder of the build and is four
    # fifths of the file. What you set comes behind it: CFLAGS=-g keeps it.
    os.environ["CFLAGS"] = f"-g0 {os.environ.get('CFLAGS', '')}"
if sys.platform.startswith("linux"):
    libraries = ["dl"]  # glibc < 2.34
    # Python's build does not hand its hardening on to extensions.
    compile_args += [
        "-fstack-protector-strong",
        "-U_FORTIFY_SOURCE",
        "-D_FORTIFY_SOURCE=2",
    ]
    link_args += ["-Wl,-z,relro,-z,now,-z,noexecstack,--as-needed"]


class BuildExtension(build_ext):
    """Leaves out the RUNPATH that Python's own build hands on (pyenv, conda).

    The extension needs libc alone, and nobody else has that folder.
    """

    def build_extensions(self) -> None:
        """Build them with such a linker."""
        linker = getattr(self.compiler, "linker_so", [])  # MSVC has none
        linker[:] = [part for part in linker if not part.startswith("-Wl,-rpath")]
        super().build_extensions()


class SourceArchive(sdist):
    """Writes the same bytes for the same files: no owners, no times, one order."""

    def make_archive(self, base_name: str, kind: str, *_: Any, **names: Any) -> str:
        """Write what ``names["base_dir"]`` holds, and return the archive's name."""
        if kind != "gztar":
            raise SystemExit(f"pykeyupdate: no source archive as {kind}: use gztar")
        name = f"{base_name}.tar.gz"
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as members:
            members.add(names["base_dir"], filter=anonymous)  # in the names' order
        with open(name, "wb") as file:
            file.write(gzip.compress(tar.getvalue(), mtime=SECONDS))
        return name


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave of a file's owner, time and mode what is the same for all who build."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = SECONDS
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


setup(
    cmdclass={"build_ext": BuildExtension, "sdist": SourceArchive},
    ext_modules=[
        Extension(
            "pykeyupdate._keyupdate",
            sources=sorted(glob("ext/**/*.c", recursive=True)),
            depends=sorted(glob("ext/**/*.h", recursive=True)),
            include_dirs=["ext"],
            libraries=libraries,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ],
)
