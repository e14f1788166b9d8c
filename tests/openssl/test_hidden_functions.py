"""Functions that are not exported: locate_elf.c and elf.c, locate_macho.c and macho.c.

C programs stand in for interpreters with OpenSSL linked in and hidden
(tests/platforms/standalone builds real ones for Linux). tests/platforms/test_macho.py
reads images of macOS elsewhere.
"""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support import openssl_library

from pykeyupdate import _keyupdate

EXT = Path(__file__).parents[2] / "ext"

pytestmark = pytest.mark.skipif(
    not EXT.exists()
    or shutil.which("cc") is None
    or sys.platform not in ("linux", "darwin"),
    reason="needs the sources, a C compiler, and Linux or macOS",
)
of_elf = pytest.mark.skipif(sys.platform != "linux", reason="an ELF file is read there")


def compiled(program, *arguments):
    """Compile with some of the extension's files; skip where that is not possible."""
    command = ["cc", "-std=gnu11", "-g", "-I", EXT, *arguments, "-o", program, "-ldl"]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return program


# -- the way from an address to functions ----------------------------------------------

HIDDEN = """
#define HIDDEN __attribute__((visibility("hidden"), noinline))
HIDDEN int ERR_other(int x) { return x * 5; }
HIDDEN int SSL_one(int x) { return x + VALUE; }
HIDDEN int SSL_two(int x) { return ERR_other(x); }
int (*all[])(int) = {SSL_one, SSL_two};
void *address_of(int i) { return (void *)all[i]; }
"""

PROGRAM = """
#include "openssl/locate.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *(*address_of_)(int);
#ifdef WITHIN
void *address_of(int i);
#endif

/* argv: what to do before; a library that holds the functions, if they are not here */
int main(int argc, char **argv)
{
    void *library = argc > 2 ? dlopen(argv[2], RTLD_NOW) : NULL;
    address_of_ = (void *(*)(int))(library ? dlsym(library, "address_of") : NULL);
#ifdef WITHIN
    address_of_ = address_of;
#endif
    char *one = address_of_(0);
    if (strcmp(argv[1], "patch") == 0) {
        char *page = (char *)((unsigned long)one & ~4095ul);
        mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
        one[0] ^= 1;
    }
    else if (strcmp(argv[1], "run") != 0 && system(argv[1]) != 0) {
        return 2;
    }
    struct ku_image image = {0};
    struct ku_function functions[] = {{"SSL_two", 0}, {"SSL_no", 0}, {"SSL_one", 0}};
    if (ku_locate(&image, one, "SSL_one") != KU_LOCATED || !image.is_hidden) {
        puts("not hidden");
        return 0;
    }
    const char *failure = ku_locate_functions(&image, functions, 3);
    puts(failure != NULL                          ? failure
         : functions[0].address != address_of_(1) ? "wrong"
         : functions[1].address != NULL           ? "wrong"
         : functions[2].address != one            ? "wrong"
                                                  : "right");
    return 0;
}
"""

LOCATE = [EXT / "openssl" / "locate_elf.c", EXT / "system" / "elf.c"]
STRIP = {"debug": "--strip-debug", "all": "--strip-all"}
NO_NAMES = "it has no symbol table"
if sys.platform == "darwin":
    LOCATE = [EXT / "openssl" / "locate_macho.c", EXT / "system" / "macho.c"]
    LOCATE += ["-DPYKEYUPDATE_MACHO_SYMBOLS=1"]
    STRIP = {"debug": "-S", "all": "-x"}
    NO_NAMES = "its symbol table does not name them"


class Place:
    """A program, and where its hidden functions are: in it, or in a library."""

    def __init__(self, folder, within):
        self.folder, self.program = folder, folder / "program"
        (folder / "hidden.c").write_text(HIDDEN)
        (folder / "program.c").write_text(PROGRAM)
        self.library = None if within else folder / "library.so"
        here = ["-DWITHIN", folder / "hidden.c", "-DVALUE=1"] if within else []
        compiled(self.program, folder / "program.c", *here, *LOCATE)
        self.file = self.program if within else self.make_library(self.library)

    def make_library(self, path, value=1):
        return compiled(
            path, "-shared", "-fPIC", f"-DVALUE={value}", self.folder / "hidden.c"
        )

    def says(self, first="run"):
        command = [self.program, first, *([self.library] if self.library else [])]
        return subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.strip()


@pytest.fixture(params=["program", "library"])
def place(request, tmp_path):
    return Place(tmp_path, request.param == "program")


def test_hidden_functions_are_found(place):
    assert place.says() == "right"
    subprocess.run(["strip", STRIP["debug"], place.file], check=True)
    assert place.says() == "right"


def test_a_stripped_file_has_none(place):
    subprocess.run(["strip", STRIP["all"], place.file], check=True)
    assert place.says() == NO_NAMES


@of_elf
def test_code_that_was_changed_in_memory_is_refused(place):
    assert place.says("patch") == "its code is not the code in memory"


@of_elf
def test_a_program_whose_file_was_replaced_is_right(tmp_path):
    place = Place(tmp_path, within=True)
    assert (
        place.says(f"mv {place.program} {tmp_path}/old && cp /bin/true {place.program}")
        == "right"
    )


@of_elf
def test_a_library_whose_file_was_replaced_is_refused(tmp_path):
    place = Place(tmp_path, within=False)
    place.make_library(tmp_path / "other.so", value=2)
    swap = "mv {0}/library.so {0}/old && mv {0}/{1} {0}/library.so".format
    assert (
        place.says(swap(tmp_path, "other.so")) == "its code is not the code in memory"
    )
    shutil.copy("/bin/true", tmp_path / "true")
    place.make_library(place.library)
    assert place.says(swap(tmp_path, "true")) == "it is not the file that runs"
    place.make_library(place.library)
    assert place.says(f"rm {place.library}") == "it cannot be read"


def test_two_functions_of_one_name_are_refused(place):
    twin = place.folder / "twin.c"
    twin.write_text(
        "static int SSL_one(int x) { return x - 7; } int (*twin)(int) = SSL_one;"
    )
    source, others = place.folder / "hidden.c", []
    if place.library:
        others = ["-shared", "-fPIC"]
    else:
        others = ["-DWITHIN", place.folder / "program.c", *LOCATE]
    compiled(place.file, *others, source, twin, "-DVALUE=1")
    assert place.says() == "its symbol table has several functions of one name"


def test_exported_functions_are_not_hidden(tmp_path):
    place = Place(tmp_path, within=False)
    source = tmp_path / "hidden.c"
    source.write_text(HIDDEN.replace('visibility("hidden"), ', ""))
    place.make_library(place.library)
    assert place.says() == "not hidden"


# -- reading a file that may be anything -----------------------------------------------

READER = """
#include "system/elf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long long random_state;

static unsigned int
random_below(unsigned int limit)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned int)(random_state >> 33) % limit;
}

/* Fields are of 1, 2, 4 or 8 bytes; edges of their range break more than noise does. */
static void
change(unsigned char *bytes, size_t size, size_t near)
{
    static const unsigned long long EDGES[] = {0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fffffff,
        0xffffffff, 0x100000000, 0x7fffffffffffffff, 0xffffffffffffffff,
        0xfffffffffffffff8, 0x8000000000000000};
    size_t width = (size_t)1 << random_below(4);
    size_t at = (near + random_below(4096)) % size / width * width;
    unsigned long long value = 0;
    if (at + width > size) {
        return;
    }
    memcpy(&value, bytes + at, width);
    switch (random_below(4)) {
    case 0: value = EDGES[random_below(sizeof(EDGES) / sizeof(EDGES[0]))]; break;
    case 1: value = size - random_below(64) + random_below(64); break;
    case 2: value += random_below(64) - 32; break;
    default: value ^= 1ull << random_below(8 * (unsigned int)width);
    }
    memcpy(bytes + at, &value, width);
}

static unsigned int sum;

static int
read_all(const unsigned char *bytes, size_t size)
{
    unsigned char *copy = malloc(size ? size : 1); /* its end is watched */
    memcpy(copy, bytes, size);
    struct ku_elf elf = {copy, size};
    struct ku_elf_function functions[] = {
        {.name = "SSL_one"}, {.name = "SSL_two"}, {.name = "ERR_other"}, {.name = "x"}};
    static const ElfW(Phdr) headers[64];
    for (size_t count = 0; count < 64; count++) {
        sum += (unsigned int)ku_elf_is_of(&elf, headers, count);
    }
    const char *failure = ku_elf_find(&elf, functions, 4);
    int found = 0;
    for (int i = 0; i < 4; i++) {
        for (size_t j = 0; j < functions[i].size; j++) {
            sum += functions[i].code[j];
        }
        found += functions[i].size != 0;
    }
    free(copy);
    return failure == NULL ? found : 0;
}

int main(int argc, char **argv)
{
    static unsigned char bytes[1 << 20], changed[1 << 20];
    FILE *file = fopen(argv[1], "rb");
    size_t size = fread(bytes, 1, sizeof(bytes), file);
    ElfW(Ehdr) header;
    memcpy(&header, bytes, sizeof(header));
    printf("%d", argc == 3 ? read_all(bytes, size) : 0);
    int passed = 0, refused = 0;
    for (int i = 0; i < atoi(argv[2]); i++) {
        memcpy(changed, bytes, size);
        unsigned int length = (unsigned int)size, n = random_below(4);
        for (; n > 0 || random_below(4) == 0; n -= n > 0) {
            const size_t near[] = {
                0, header.e_shoff, header.e_phoff, random_below(length)};
            change(changed, size, near[random_below(4)]);
        }
        size_t left = random_below(3) == 0 ? random_below(length + 1) : size;
        *(read_all(changed, left) ? &passed : &refused) += 1;
    }
    printf(" %d %d\\n", passed > 0, refused > 0);
    return sum == 0x12345;
}
"""


@pytest.fixture
def reader(tmp_path):
    """Compile the reader with sanitizers; return what runs it on a file."""
    source, program = tmp_path / "reader.c", tmp_path / "reader"
    source.write_text(READER)
    sanitizers = "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    try:
        compiled(program, *sanitizers, source, EXT / "system" / "elf.c")
    except AssertionError as error:
        pytest.skip(f"no sanitizers: {error}")

    def read(file, changes):
        result = subprocess.run(
            [program, file, str(changes)],
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
            check=False,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return [int(number) for number in result.stdout.split()]

    return read


@pytest.fixture
def elf_file(tmp_path):
    return Place(tmp_path, within=False).file


@of_elf
def test_no_file_leads_the_reader_astray(reader, elf_file):
    """Headers, sections, symbols and the end are changed; the sanitizers watch."""
    assert reader(elf_file, 20000) == [3, 1, 1]


def end_names_with_the_file(data, names_header, symbol):
    """Leave the table of names without its last 0, and give a symbol the last name."""
    data[-3:] = b"SSL"
    (start,) = struct.unpack_from("<Q", data, names_header + 24)
    struct.pack_into("<Q", data, names_header + 32, len(data) - start)
    struct.pack_into("<I", data, symbol, len(data) - start - 3)


def begin_names_with_the_file(data, names_header, symbol):
    """There is no byte before, which could be a 0."""
    struct.pack_into("<QQ", data, names_header + 24, 0, 0)


CHANGES = [
    end_names_with_the_file,
    begin_names_with_the_file,
    lambda data, names_header, symbol: struct.pack_into("<H", data, 54, 55),
    lambda data, names_header, symbol: struct.pack_into("<H", data, 58, 63),
    lambda data, names_header, symbol: struct.pack_into("<B", data, 4, 1),  # 32 bits
    lambda data, names_header, symbol: struct.pack_into("<B", data, 5, 2),  # big-endian
]


@of_elf
@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="the offsets are those of 64 bits")
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_noise_does_not_make_is_refused(reader, elf_file, change):
    from elftools.elf.elffile import ELFFile

    data = bytearray(elf_file.read_bytes())
    with elf_file.open("rb") as file:
        elf = ELFFile(file)
        names = elf.get_section_index(".strtab")
        (which,) = (
            index
            for index, symbol in enumerate(
                elf.get_section_by_name(".symtab").iter_symbols()
            )
            if symbol.name == "SSL_one"
        )
        symbol = elf.get_section_by_name(".symtab")["sh_offset"] + which * 24
        change(data, elf["e_shoff"] + names * elf["e_shentsize"], symbol)
    elf_file.write_bytes(data)
    assert reader(elf_file, 0)[0] == 0


# -- the interpreter that this is ------------------------------------------------------


@pytest.mark.skipif(not openssl_library.IS_HIDDEN, reason="OpenSSL is not hidden here")
def test_all_are_where_another_reader_finds_them():
    expected = {
        name: openssl_library.base() + openssl_library.symbols()[name]
        for name in _keyupdate.addresses()
        if name in openssl_library.symbols()
    }
    found = {name: at for name, at in _keyupdate.addresses().items() if at}
    assert found == expected
    assert _keyupdate.addresses().keys() - found == {"SSL_state_string"}
