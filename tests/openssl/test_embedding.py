"""A program that embeds Python and exports an OpenSSL: refused or right, never wrong.

The loader binds `_ssl` to the program's functions, because they come first in the
process. Whoever asks for the libssl that `_ssl` was linked to gets another one, which
does not know its `SSL*`. See the head of ext/openssl/locate_elf.c.
"""

import _ssl
import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import pykeyupdate
from pykeyupdate import _keyupdate

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Windows and macOS bind to a library by its name"
)

EMBEDDING = """
#include <Python.h>
int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
"""
ABORTING = """
#include <stdio.h>
#include <stdlib.h>
#define OURS(name) void name(void) { puts("the program's " #name); abort(); }
"""
STOCK = """
import ssl
context = ssl.create_default_context()
conn = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
try:
    conn.do_handshake()
except ssl.SSLWantReadError:
    print("works")
"""
UPDATE = """
import ssl, pykeyupdate
context = ssl.create_default_context()
conn = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
pykeyupdate.get_key_update_type(conn)
try:
    pykeyupdate.renegotiate(conn)
except pykeyupdate.HandshakeNotDoneError:
    print(pykeyupdate._keyupdate.libssl["path"])
"""


@pytest.fixture
def run_embedded(tmp_path):
    """Build a program that exports functions, and run Python in it."""
    config = sysconfig.get_config_vars()

    def run(exports, *arguments, libraries=()):
        source, program = tmp_path / "program.c", tmp_path / "program"
        source.write_text(EMBEDDING + exports)
        command = ["cc", "-rdynamic", "-o", program, source, *libraries]
        command += ["-I", sysconfig.get_path("include"), f"-L{config['LIBDIR']}"]
        command += [f"-L{config['LIBPL']}", f"-lpython{config['LDVERSION']}"]
        command += [*config["LIBS"].split(), *config["SYSLIBS"].split(), "-ldl"]
        command += [f"-Wl,-rpath,{config['LIBDIR']}"]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"").decode()
            pytest.skip(f"no libpython to embed, or no compiler: {error} {said[-500:]}")
        paths = [
            *dict.fromkeys([str(Path(pykeyupdate.__file__).parents[1]), *sys.path])
        ]
        home = f"{sys.base_prefix}:{sys.base_exec_prefix}"
        path = os.pathsep.join(filter(None, paths))
        return subprocess.run(
            [program, *arguments],
            env={**os.environ, "PYTHONHOME": home, "PYTHONPATH": path},
            check=False,
            capture_output=True,
            text=True,
        )

    return run


def test_functions_that_ssl_does_not_use_are_not_taken(run_embedded):
    unused = "OURS(SSL_key_update) OURS(SSL_get_key_update_type) OURS(SSL_state_string)"
    result = run_embedded(ABORTING + unused, "-c", UPDATE)
    found = os.path.realpath(result.stdout.strip())
    assert found == os.path.realpath(_keyupdate.libssl["path"]), result.stderr


# -- a real OpenSSL, linked in ---------------------------------------------------------

STATIC = ["libssl.a", "libcrypto.a"]
IN_USE = """
void *SSL_new(void *), *SSL_CTX_new(void *), *TLS_method(void);
int pykeyupdate_test_uses_it(void) { return SSL_new(SSL_CTX_new(TLS_method())) != 0; }
"""


@pytest.fixture
def static_openssl():
    """Return the archives of an OpenSSL, of the version that `_ssl` was built for."""
    found = []
    for name in STATIC:
        asked = ["cc", f"-print-file-name={name}"]
        try:
            path = subprocess.run(asked, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no compiler")
        found.append(path.stdout.strip())
    if not all(map(os.path.isabs, found)):
        pytest.skip("no libssl.a")
    version = _keyupdate.libssl["version"].encode()
    if version not in Path(found[1]).read_bytes():
        pytest.skip(f"libcrypto.a is not {version.decode()}")
    return found


def test_a_whole_openssl_of_the_program_is_taken(run_embedded, static_openssl):
    """The demo asks OpenSSL's message callback what was sent."""
    whole = ["-Wl,--whole-archive", *static_openssl, "-Wl,--no-whole-archive"]
    result = run_embedded("", "-c", UPDATE, libraries=whole)
    assert result.stdout.strip() == "the program itself", result.stderr
    result = run_embedded("", "-m", "pykeyupdate", "demo", libraries=whole)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_part_of_an_openssl_is_refused_or_right(run_embedded, static_openssl):
    """The linker takes what the program uses; `_ssl` gets the rest from its libssl."""
    result = run_embedded(IN_USE, "-c", UPDATE, libraries=static_openssl)
    if result.returncode == 0:
        assert result.stdout.strip() == "the program itself"
    else:
        assert re.search(r"\nImportError: pykeyupdate cannot work here", result.stderr)


# -- one that is not OpenSSL -----------------------------------------------------------

STAND_IN = """
#include <dlfcn.h>
#include <stdlib.h>
void *slots[COUNT];
static const char *const names[] = { NAMES };
__attribute__((constructor)) static void bind(void)
{
    void *real = dlopen("LIBSSL", RTLD_NOW | RTLD_LOCAL);
    for (int i = 0; i < COUNT; i++) {
        slots[i] = dlsym(real, names[i]);
    }
}
/* Its SSL is another struct, with nothing of OpenSSL's where OpenSSL looks. */
void *SSL_new(void *context)
{
    unsigned long *ours = calloc(1, 1 << 16);
    ours[0] = (unsigned long)((void *(*)(void *))slots[0])(context);
    ours[1] = MARK;
    return ours;
}
"""
FORWARD = (
    'asm(".globl {name}\\n.type {name},@function\\n'
    '{name}: {unwrap} jmp *slots+{offset}(%rip)");\n'
)
MARK = "0x6b65797570646174"
UNWRAP = (  # libssl calls these functions, too, with its own
    "test %rdi, %rdi; jz 1f;"
    f"movabs ${MARK}, %r11; cmp %r11, 8(%rdi); jne 1f; mov (%rdi), %rdi; 1:"
)
TAKES_NO_SSL = re.compile(r"SSL_([A-Z]|alert_|select_|get_ex_data_X509|load_|library_)")


def functions_of_ssl(kind):
    """Return the names of the functions that `_ssl` takes from outside."""
    elffile = pytest.importorskip("elftools.elf.elffile")
    with open(_ssl.__file__, "rb") as file:
        symbols = elffile.ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        undefined = [s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"]
    return [name for name in undefined if name.startswith(kind)]


def stand_in(names):
    """Write a library in C whose SSL is of its own, and does what OpenSSL's does."""
    names = ["SSL_new", *sorted({*names} - {"SSL_new"})]
    text = STAND_IN.replace("COUNT", str(len(names))).replace("MARK", MARK)
    text = text.replace("NAMES", ", ".join(f'"{name}"' for name in names))
    text = text.replace("LIBSSL", _keyupdate.libssl["path"])
    for index, name in enumerate(names[1:], 1):
        unwrap = "" if TAKES_NO_SSL.match(name) else UNWRAP
        text += FORWARD.format(name=name, unwrap=unwrap, offset=8 * index)
    return text


@pytest.mark.skipif(platform.machine() != "x86_64", reason="has its machine code")
@pytest.mark.skipif(not hasattr(_ssl, "__file__"), reason="_ssl is in the interpreter")
@pytest.mark.parametrize("more", [[], ["SSL_key_update", "SSL_get_key_update_type"]])
def test_another_library_of_the_same_names_is_refused(run_embedded, more):
    """As BoringSSL would be: libssl's own functions do not know its SSL."""
    exports = stand_in([*functions_of_ssl("SSL_"), *more])
    result = run_embedded(exports, "-c", STOCK)
    assert result.stdout == "works\n", result.stderr
    result = run_embedded(exports, "-c", UPDATE)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "without functions that every OpenSSL has" in result.stderr
