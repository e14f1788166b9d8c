"""The extension; everything else is in pyproject.toml.

No OpenSSL headers and no -lssl: libssl is bound at run time, to the one that the
interpreter's ssl module uses (see ext/openssl/libssl.c). A C compiler is all it takes.
"""

import platform
import sys
from glob import glob

from setuptools import Extension, setup

if platform.python_implementation() != "CPython":
    sys.exit("pykeyupdate works on CPython only: it reads CPython's own ssl objects")

if sys.platform == "win32":
    compile_args = ["/W4", "/guard:cf"]
    link_args = ["/guard:cf"]
    libraries = ["ws2_32"]
else:
    compile_args = ["-std=c11", "-O2", "-pthread", "-fvisibility=hidden"]
    compile_args += ["-Wall", "-Wextra"]
    link_args = ["-pthread"]
    libraries = []
if sys.platform.startswith("linux"):
    libraries = ["dl"]  # glibc < 2.34
    # Python's build does not hand its hardening on to extensions.
    compile_args += [
        "-fstack-protector-strong",
        "-U_FORTIFY_SOURCE",
        "-D_FORTIFY_SOURCE=2",
    ]
    link_args += ["-Wl,-z,relro,-z,now,-z,noexecstack,--as-needed"]

setup(
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
    ]
)
