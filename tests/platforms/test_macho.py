"""ext/system/macho.c: functions that are not exported, in images of macOS.

zig builds the images, and a C program maps them as the loader there does. What macOS
itself makes of it is in tests/openssl/test_hidden_functions.py.
"""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

ziglang = pytest.importorskip("ziglang")
pytest.importorskip("macholib")

EXT = Path(__file__).parents[2] / "ext"
ZIG = Path(ziglang.__file__)
HEADERS = ZIG.parent / "lib" / "libc" / "include" / "any-darwin-any"
STUBS = {  # what <mach-o/loader.h> includes for the sake of a few names
    "mach/machine.h": "typedef int cpu_type_t; typedef int cpu_subtype_t;",
    "mach/vm_prot.h": "typedef int vm_prot_t;",
    "mach/machine/thread_status.h": "",
    "architecture/byte_order.h": "",
}
NAMES = ["SSL_two", "SSL_no", "ERR_other", "SSL_one"]

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or os.name == "nt", reason="needs a C compiler"
)

IMAGE = """
#define HIDDEN __attribute__((visibility("hidden"), noinline))
HIDDEN int ERR_other(int x) { return x * 5; }
HIDDEN int SSL_one(int x) { return x + 1; }
HIDDEN int SSL_two(int x) { return ERR_other(x); }
HIDDEN int SSL_no = 7; /* no function */
int (*all[])(int) = {SSL_one, SSL_two};
int *data = &SSL_no;
"""

READER = """
#include "system/macho.h"
#include <mach-o/nlist.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state;

static uint32_t
random_below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % limit;
}

/* Where the parts of the image lie in memory: in one piece, whose end is watched. */
static unsigned char *mapped;
static size_t mapped_size;
static struct symtab_command *symtab;
static struct segment_command_64 *linkedit;

static void
map(const unsigned char *file)
{
    const struct mach_header_64 *header = (const void *)file;
    const unsigned char *at = (const void *)(header + 1);
    uint64_t start = 0;
    for (uint32_t i = 0; i < header->ncmds; i++) {
        const struct segment_command_64 *segment = (const void *)at;
        if (segment->cmd == LC_SEGMENT_64) {
            start = strcmp(segment->segname, SEG_TEXT) == 0 ? segment->vmaddr : start;
            mapped_size = segment->vmaddr - start + segment->filesize;
            mapped = realloc(mapped, mapped_size);
            memcpy(mapped + segment->vmaddr - start, file + segment->fileoff,
                   segment->filesize);
        }
        at += segment->cmdsize;
    }
    at = mapped + sizeof(*header);
    for (uint32_t i = 0; i < header->ncmds; i++) {
        struct segment_command_64 *segment = (void *)at;
        linkedit = segment->cmd == LC_SEGMENT_64 ? segment : linkedit;
        symtab = segment->cmd == LC_SYMTAB ? (void *)at : symtab;
        at += segment->cmdsize;
    }
}

/* Returns how many were found; prints where, if wanted. */
static int
find(char **names, size_t count, int prints)
{
    struct ku_macho_function found[16] = {{0}};
    for (size_t i = 0; i < count; i++) {
        found[i].name = names[i];
        found[i].index = i;
    }
    const char *failure = ku_macho_find((const void *)mapped, found, count);
    int n_found = 0;
    for (size_t i = 0; i < count && failure == NULL; i++) {
        const unsigned char *address = found[i].address;
        n_found += address != NULL;
        if (address != NULL && (address < mapped || address >= mapped + mapped_size)) {
            abort();
        }
        if (prints && address != NULL) {
            printf("%s %zu\\n", names[found[i].index], (size_t)(address - mapped));
        }
    }
    if (prints && failure != NULL) {
        puts(failure);
    }
    return n_found;
}

/* Values near the edges break more than noise does. */
static uint32_t
changed(uint32_t value)
{
    static const uint32_t EDGES[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffff8, ~0u};
    switch (random_below(3)) {
    case 0: return EDGES[random_below(6)];
    case 1: return value + random_below(64) - 32;
    default: return value ^ 1u << random_below(32);
    }
}

static void
change(const struct symtab_command *saved)
{
    uint32_t *fields[] = {&symtab->symoff, &symtab->nsyms, &symtab->stroff,
                          &symtab->strsize};
    for (uint32_t n = random_below(3); n > 0; n--) {
        uint32_t *field = fields[random_below(4)];
        *field = changed(*field);
    }
    unsigned char *table = mapped + mapped_size - linkedit->filesize
                           + (saved->symoff - linkedit->fileoff);
    for (uint32_t n = random_below(8); n > 0; n--) {
        uint32_t *word = (void *)(table
                                  + random_below(saved->nsyms
                                                 * (uint32_t)sizeof(struct nlist_64))
                                        / 4 * 4);
        *word = changed(*word);
    }
    if (random_below(4) == 0) {
        mapped[mapped_size - 1 - random_below(8)] ^= 1;
    }
}

int main(int argc, char **argv)
{
    static _Alignas(8) unsigned char bytes[1 << 20];
    FILE *file = fopen(argv[1], "rb");
    (void)fread(bytes, 1, sizeof(bytes), file);
    map(bytes);
    find(argv + 3, (size_t)argc - 3, 1);
    unsigned char *image = malloc(mapped_size);
    memcpy(image, mapped, mapped_size);
    const struct symtab_command saved = *symtab;
    int passed = 0, refused = 0;
    for (int i = 0; i < atoi(argv[2]); i++) {
        memcpy(mapped, image, mapped_size);
        change(&saved);
        *(find(argv + 3, (size_t)argc - 3, 0) ? &passed : &refused) += 1;
    }
    printf("%d %d\\n", passed > 0, refused > 0);
    return 0;
}
"""


def run(*command):
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    for name in ("loader.h", "nlist.h"):
        (folder / "mach-o").mkdir(exist_ok=True)
        shutil.copy(HEADERS / "mach-o" / name, folder / "mach-o")
    for name, text in STUBS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "reader.c").write_text(READER)
    source, program = folder / "reader.c", folder / "reader"
    command = ["cc", "-std=gnu11", "-g", "-I", EXT, "-I", folder, "-o", program]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    run(*command, source, EXT / "system" / "macho.c")
    return program


@pytest.fixture(params=["aarch64-macos", "x86_64-macos"])
def target(request):
    return request.param


def build(folder, target, *arguments, text=IMAGE):
    source, image = folder / "image.c", folder / "image.dylib"
    source.write_text(text)
    zig = ZIG.with_name("zig"), "cc", "-target", target, "-O1"
    run(*zig, "-shared", *arguments, "-o", image, source)
    return image


def table_of(image):
    """Return another reader's view of the symbol table."""
    from macholib.MachO import MachO
    from macholib.SymbolTable import SymbolTable

    return SymbolTable(MachO(str(image)))


def test_functions_are_where_another_reader_finds_them(reader, target, tmp_path):
    image = build(tmp_path, target)
    *lines, _ = run(reader, image, 0, *NAMES)
    found = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert found == {
        name[1:].decode(): symbol.n_value
        for symbol, name in table_of(image).nlists
        if name in (b"_ERR_other", b"_SSL_one", b"_SSL_two")
    }
    assert len(found) == 3


def test_what_is_no_function_is_not_found(reader, target, tmp_path):
    """A stripped image has no names, either."""
    lines = run(reader, build(tmp_path, target), 0, "SSL_no", "SSL_never")
    assert lines[0] == "its symbol table does not name them"


def test_two_functions_of_one_name_are_refused(reader, target, tmp_path):
    twin = tmp_path / "twin.c"
    twin.write_text(
        "__attribute__((noinline)) static int SSL_one(int x) { return x - 7; }"
        "int (*twin)(int) = SSL_one;"
    )
    image = build(tmp_path, target, twin)
    assert run(reader, image, 0, *NAMES)[0] == (
        "its symbol table has several functions of one name"
    )


def test_no_table_leads_the_reader_astray(reader, target, tmp_path):
    """The sanitizers watch the end of the image, which is that of the names."""
    assert run(reader, build(tmp_path, target), 20000, *NAMES)[-1] == "1 1"


def without_names(data, command, symbol, end):
    struct.pack_into("<I", data, command + 20, 0)


def between_two_symbols(data, command, symbol, end):
    start, count = struct.unpack_from("<2I", data, command + 8)
    struct.pack_into("<2I", data, command + 8, start + 4, count - 1)


def without_the_last_zero(data, command, symbol, end):
    """The names end with the image, in the middle of one, and it is a symbol's."""
    (start,) = struct.unpack_from("<I", data, command + 16)
    struct.pack_into("<I", data, command + 20, end - start)
    data[end - 5 : end] = b"_SSL_"
    struct.pack_into("<I", data, symbol, end - start - 5)


def of_a_debugger(data, command, symbol, end):
    data[symbol + 4] |= 0x20


def of_no_section(data, command, symbol, end):
    data[symbol + 4] &= ~0x0C


NO_TABLE = "it has no symbol table"
EDITS = {
    without_names: NO_TABLE,
    between_two_symbols: NO_TABLE,
    without_the_last_zero: NO_TABLE,
    of_a_debugger: "its symbol table does not name them",
    of_no_section: "its symbol table does not name them",
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_table_that_noise_does_not_make_is_refused(reader, target, tmp_path, edit):
    image = build(tmp_path, target)
    table = table_of(image)
    (index,) = (  # debuggers have another of this name
        index
        for index, (symbol, name) in enumerate(table.nlists)
        if name == b"_SSL_one" and symbol.n_type < 0x20
    )
    linkedit = max(
        (command for _, command, _ in table.macho_header.commands),
        key=lambda command: getattr(command, "fileoff", 0),
    )
    data = bytearray(image.read_bytes())
    start, count = table.symtab.symoff, table.symtab.nsyms
    command = data.index(struct.pack("<4I", 2, 24, start, count))
    end = linkedit.fileoff + linkedit.filesize
    edit(data, command, start + 16 * index, end)
    image.write_bytes(data)
    assert run(reader, image, 0, "SSL_one")[0] == EDITS[edit]


@pytest.mark.parametrize("switch", [0, 1])
def test_it_compiles_for_macos(target, switch, tmp_path):
    """For other systems nobody would notice that it does not."""
    zig = ZIG.with_name("zig"), "cc", "-target", target, "-std=c11", "-O2"
    flags = "-Wall", "-Wextra", "-Werror", f"-DPYKEYUPDATE_MACHO_SYMBOLS={switch}"
    sources = EXT / "openssl" / "locate_macho.c", EXT / "system" / "macho.c"
    run(*zig, *flags, "-I", EXT, "-shared", "-o", tmp_path / "it.dylib", *sources)
