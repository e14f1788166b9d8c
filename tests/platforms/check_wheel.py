"""Refuse a wheel that would not work everywhere that its name says, or that could harm.

    python tests/platforms/check_wheel.py WHEEL...      (a second for each)

Prints what is wrong with each wheel; exits with 1 if anything is. Needs pyelftools,
macholib and pefile (the group `core`).

An extension that needs libssl, or brings one along, calls it with the `SSL*` of another
OpenSSL, and crashes. One that needs any library but the system's does not load
elsewhere. A name that it exports, or a folder that it searches, reaches into other
libraries of the process. Debug information is four fifths of the file, and names the
folder of the build.

Wheels for Linux, macOS and Windows are checked alike, on any system: cibuildwheel runs
this as its `audit-command`, `.ci/run` on what it built, zigwheel.py on what it
cross-built, and test_check_wheel.py on wheels that are really wrong.
"""

import io
import re
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

PACKAGE = "pykeyupdate"
EXTENSION = re.compile(rf"{PACKAGE}/_keyupdate[.\w-]*\.(so|pyd)")
CONTENTS = re.compile(
    rf"{PACKAGE}/(\w+/)*\w+\.py|{PACKAGE}/(_keyupdate\.pyi|py\.typed)"
    rf"|{PACKAGE}-[\w.]+\.dist-info/"
    r"(METADATA|RECORD|WHEEL|entry_points\.txt|top_level\.txt|licenses/LICENSE)"
)
REQUIRED = [
    f"{PACKAGE}/__init__.py",
    f"{PACKAGE}/_keyupdate.pyi",
    f"{PACKAGE}/py.typed",
]

INIT_FUNCTION = "PyInit__keyupdate"
OF_THE_LINKER = {
    *("_init", "_fini"),  # old binutils export them from every library
    *("__dso_handle", "_mh_dylib_header"),  # zig, for macOS
}
OPENSSL = re.compile(r"(SSL|CRYPTO|OPENSSL|ERR|BIO|X509|EVP)_|OpenSSL_")
SYSTEM = re.compile(  # libraries that every such system has
    r"lib(c|dl|pthread|m)\.so\.6?\d?|libc\.musl-\w+\.so\.1|libc\.so|ld-(linux|musl)[-\w.]*"
    r"|/usr/lib/libSystem\.B\.dylib"
    r"|(kernel32|ws2_32|msvcrt|ucrtbase|vcruntime140(_1)?|python3\d+t?)\.dll"
    r"|api-ms-win-crt-[-\w]+\.dll",
    re.IGNORECASE,
)
MACHINES = {  # in the names of wheels, and in ELF, Mach-O and PE
    "x86_64": ("EM_X86_64", 0x01000007, None),
    "aarch64": ("EM_AARCH64", None, None),
    "arm64": (None, 0x0100000C, 0xAA64),
    "amd64": (None, None, 0x8664),
}


class Binary(NamedTuple):
    """What a dynamic library says of itself."""

    machine: object
    needs: list
    exports: set
    imports: set
    run_paths: list
    debug: list  # sections and the like that hold debug information
    glibc: list = ()  # the versions of glibc that it asks for


# -- the three formats -----------------------------------------------------------------


def read_elf(data):
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(data))
    tags = list(elf.get_section_by_name(".dynamic").iter_tags())
    symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())[1:]
    versions = elf.get_section_by_name(".gnu.version_r")
    asked = (
        [aux.name for _, group in versions.iter_versions() for aux in group]
        if (versions)
        else []
    )
    return Binary(
        machine=elf["e_machine"],
        needs=[tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"],
        exports={s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF"},
        imports={s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"},
        run_paths=[
            getattr(tag, name)
            for tag in tags
            for name in ("rpath", "runpath")
            if hasattr(tag, name)
        ],
        debug=[
            section.name
            for section in elf.iter_sections()
            if re.match(r"\.(z?debug|stab|gdb_index)", section.name)
        ],
        glibc=[
            tuple(map(int, name[6:].split(".")))
            for name in asked
            if re.fullmatch(r"GLIBC_[\d.]+", name)
        ],
    )


def read_macho(data):
    from macholib.MachO import MachO
    from macholib.SymbolTable import SymbolTable

    with tempfile.TemporaryDirectory() as folder:  # macholib reads files alone
        path = Path(folder, "extension.so")
        path.write_bytes(data)
        file = MachO(str(path))
        symbols = SymbolTable(file).nlists
    header = file.headers[0]
    commands = [(type(c[1]).__name__, c[1], c[2]) for c in header.commands]
    names = {True: set(), False: set()}  # by whether it is defined here
    for symbol, name in symbols:
        if not symbol.n_type & 0xE0 and symbol.n_type & 1 and not symbol.n_type & 0x10:
            names[symbol.n_type & 0x0E != 0].add(name.decode()[1:])
    return Binary(
        machine=(
            header.header.cputype if len(file.headers) == 1 else "several machines"
        ),
        needs=[name for _, _, name in header.walkRelocatables()],
        exports=names[True],
        imports=names[False],
        run_paths=[
            rest.rstrip(b"\0").decode()
            for kind, _, rest in commands
            if kind == "rpath_command"
        ],
        debug=[
            command.segname.rstrip(b"\0").decode()
            for kind, command, _ in commands
            if kind == "segment_command_64" and command.segname.startswith(b"__DWARF")
        ]
        + ["stabs"] * any(symbol.n_type & 0xE0 for symbol, _ in symbols),
    )


def read_pe(data):
    import pefile

    pe = pefile.PE(data=data)
    imported = [
        *getattr(pe, "DIRECTORY_ENTRY_IMPORT", []),
        *getattr(pe, "DIRECTORY_ENTRY_DELAY_IMPORT", []),
    ]
    exported = getattr(pe, "DIRECTORY_ENTRY_EXPORT", None)
    codeview = pefile.DEBUG_TYPE["IMAGE_DEBUG_TYPE_CODEVIEW"]
    return Binary(
        machine=pe.FILE_HEADER.Machine,
        needs=[library.dll.decode() for library in imported],
        exports={s.name.decode() for s in exported.symbols} if exported else set(),
        imports={s.name.decode() for lib in imported for s in lib.imports if s.name},
        run_paths=[],
        debug=[
            name for name in section_names(pe) if name.startswith((".debug", ".stab"))
        ]
        + [
            "the path of a .pdb file"
            for entry in getattr(pe, "DIRECTORY_ENTRY_DEBUG", [])
            if entry.struct.Type == codeview
        ],
    )


def section_names(pe):
    """GNU's long names are "/123": where they stand in the table of strings."""
    header = pe.FILE_HEADER
    strings = header.PointerToSymbolTable + 18 * header.NumberOfSymbols
    for section in pe.sections:
        name = section.Name.rstrip(b"\0").decode()
        if re.fullmatch(r"/\d+", name):
            start = strings + int(name[1:])
            name = pe.__data__[start : pe.__data__.find(b"\0", start)].decode()
        yield name


MAGIC = {
    b"\x7fELF": read_elf,
    b"\xcf\xfa\xed\xfe": read_macho,
    b"\xca\xfe\xba\xbe": read_macho,
    b"MZ": read_pe,
}


def reader_of(data):
    """Return the function that reads this kind of library, or None if it is none."""
    kinds = [read for magic, read in MAGIC.items() if data.startswith(magic)]
    return kinds[0] if kinds else None


# -- what is wrong ---------------------------------------------------------------------


def faults_of_extension(binary):
    """Yield what is wrong with an extension, wherever it is."""
    for name in binary.needs:
        if re.search("ssl|crypto", name, re.IGNORECASE):
            yield f"needs {name}: the only OpenSSL to call is the interpreter's"
        elif not SYSTEM.fullmatch(name):
            yield f"needs {name}, which not every system has"
    for name in sorted(filter(OPENSSL.match, binary.imports)):
        yield f"imports {name}() from whichever OpenSSL the process has first"
    if INIT_FUNCTION not in binary.exports:
        yield f"does not export {INIT_FUNCTION}"
    for name in sorted(binary.exports - OF_THE_LINKER - {INIT_FUNCTION}):
        yield f"exports {name}, which another library may use instead of its own"


def faults_of_build(binary, tag):
    """Yield what is wrong with an extension in a wheel for this platform."""
    yield from (f"searches {path} for libraries" for path in binary.run_paths)
    yield from (f"has debug information: {name}" for name in binary.debug)
    machines = [m for name, m in MACHINES.items() if tag.endswith(name)]
    if not any(binary.machine in machine for machine in machines):
        yield f"is for another machine ({binary.machine}) than the wheel ({tag})"
    named = [tuple(map(int, v)) for v in re.findall(r"manylinux_(\d+)_(\d+)", tag)]
    if named and max(binary.glibc, default=(0,)) > min(named):
        asked, said = (".".join(map(str, v)) for v in (max(binary.glibc), min(named)))
        yield f"asks for glibc {asked}, and the wheel for {said}"


def faults_of_contents(files):
    """Yield what is there and should not be, and what should be."""
    extensions = [name for name in files if EXTENSION.fullmatch(name)]
    if len(extensions) != 1:
        yield f"has {len(extensions)} extensions"
    yield from (f"lacks {name}" for name in REQUIRED if name not in files)
    for name in sorted(files.keys() - extensions):
        if reader_of(files[name]):
            yield f"bundles {name}"
        elif not CONTENTS.fullmatch(name):
            yield f"has {name}, which no user needs"


def faults_of_wheel(path):
    """Yield what is wrong with a wheel."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        files = {name: archive.read(name) for name in names}
    yield from faults_of_contents(files)
    tag = Path(path).stem.rpartition("-")[2]  # or several, with dots in between
    for name in filter(EXTENSION.fullmatch, files):
        read = reader_of(files[name])
        if read is None:
            yield f"{name} is no dynamic library"
            continue
        binary = read(files[name])
        for fault in (*faults_of_extension(binary), *faults_of_build(binary, tag)):
            yield f"{name} {fault}"


def main(paths):
    """Check all; return how many are wrong."""
    wrong = 0
    for path in map(Path, paths):
        faults = list(faults_of_wheel(path))
        wrong += bool(faults)
        print(f"{path.name}: {'WRONG' if faults else 'ok'}")
        for fault in faults:
            print(f"    {fault}")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    sys.exit(1 if main(sys.argv[1:]) else 0)
