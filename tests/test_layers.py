"""Arrows point down: who includes, calls and imports whom, in ext/ and pykeyupdate/.

A file of ext/ is a ``.c`` with the ``.h`` of the same name. Each is in a storey (a
folder) and may use its own storey and those below. While a Python module is being
imported, it may import only modules below it in ``MODULES``. Imports inside functions
are not checked: each has its own reason.
"""

import ast
import re
import shutil
from pathlib import Path

import pytest

import pykeyupdate

EXT = Path(__file__).parents[1] / "ext"
PACKAGE = Path(pykeyupdate.__file__).parent

STOREYS = ["system", "openssl", "keys", "streams", "calls", "module.c"]
DEFINED_ELSEWHERE = {"openssl/locate"}  # in locate_elf.c and its like, one a system

MODULES = [  # from the lowest to the highest; of one line none imports another
    [
        "_constants",
        "_documentation",
        "_fields",
        "_fork_lock",
        "_frozen",
        "_identity_map",
    ],
    ["_errors", "_weak_list"],
    ["_import_error", "_signal_handlers", "_static_lookup"],
    ["_originals"],
    ["_walk"],
    ["_finding"],
    ["_arguments"],
    ["_events"],
    ["_policy"],
    ["_keyupdate"],
    [
        "_describing",
        "_idle_objects",
        "_idle_sockets",
        "_rekeying",
        "_stand_ins",
        "_stats",
    ],
    ["_sync"],
    ["_methods"],
    ["_managed_classes"],
    ["_carriers", "_connections", "_context_hooks", "_managed_requests"],
    ["_carrier_io"],
    ["_for_all", "_keeping_fresh"],
    ["_installation", "_running_log"],
    ["_pytest_plugin"],
    ["__init__"],
    ["_control_commands", "_metrics", "_unix_listener"],
    ["_line_server"],
    ["aio", "control", "opentelemetry", "prometheus", "testing"],
    ["_running"],
    ["_cli"],
    ["__main__"],
]

needs_the_sources = pytest.mark.skipif(not EXT.exists(), reason="no sources here")


# -- the C files -----------------------------------------------------------------------


def without_comments(text):
    """Return C without its comments and the contents of its strings."""
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', lambda m: quoted(m, text), text)
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


def quoted(string, text):
    """Leave the path of an include."""
    line = text[text.rfind("\n", 0, string.start()) + 1 : string.start()]
    return string[0] if line.strip() == "#include" else '""'


def outside_blocks(text):
    """Return C without its preprocessor's lines, and with each block as ``{}``."""
    text = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", "", text, flags=re.MULTILINE)
    depth, kept = 0, []
    for piece in re.split(r"([{}])", text):
        depth -= piece == "}"
        if depth == 0:
            kept.append(piece)
        depth += piece == "{"
    return "".join(kept)


def read_sources(ext):
    """Return each file's text by its path below ext/."""
    return {
        path.relative_to(ext).as_posix(): without_comments(path.read_text("utf-8"))
        for path in sorted(ext.rglob("*.[ch]"))
    }


def file_of(path):
    return path.rpartition(".")[0]


def storey_of(path):
    """Return how high a file lies."""
    return STOREYS.index(path.partition("/")[0])


def includes(text):
    return re.findall(r'#include "([^"]+)"', text)


def declarations(text):
    """Return the ku_* functions and variables that a header declares."""
    outside = outside_blocks(text)
    variables = re.findall(r"\bextern\b[^;(]*?\b(ku_\w+)\s*[\[;]", outside)
    return {*re.findall(r"\b(ku_\w+)\s*\((?!\*)", outside), *variables}


def definitions(text):
    """Return the ku_* functions that a file defines, static ones included."""
    return set(re.findall(r"\b(ku_\w+)\s*\([^;{}]*\)\s*\{\}", outside_blocks(text)))


def macros(text):
    return set(re.findall(r"#\s*define\s+(ku_\w+)", text))


def uses(sources):
    """Yield (user, header, name) for what a file uses of a header."""
    declared = {
        name: path
        for path, text in sources.items()
        if path.endswith(".h")
        for name in declarations(text) | macros(text)
    }
    for path, text in sources.items():
        for name in sorted(set(re.findall(r"\bku_\w+", text))):
            if declared.get(name, path) != path:
                yield path, declared[name], name


def upward_includes(sources):
    """Say which file includes one of a storey above."""
    return [
        f"{path} includes {other}"
        for path, text in sources.items()
        for other in includes(text)
        if storey_of(other) > storey_of(path)
    ]


def upward_calls(sources):
    """Say which file uses what is declared in a storey above."""
    return [
        f"{path} uses {name}, which {header} declares"
        for path, header, name in uses(sources)
        if storey_of(header) > storey_of(path)
    ]


def undeclared_calls(sources):
    """Say which file calls what it does not define and no header declares."""
    known = set()
    for path, text in sources.items():
        if path.endswith(".h"):
            known |= declarations(text) | macros(text)
    return [
        f"{path} calls {name}, which no header declares"
        for path, text in sources.items()
        for name in sorted(set(re.findall(r"\b(ku_\w+)\s*\((?!\*)", text)))
        if name not in known | definitions(text) | macros(text)
    ]


def strange_definitions(sources):
    """Say which file defines what another file's header declares."""
    homes = {
        name: file_of(path)
        for path, text in sources.items()
        if path.endswith(".h") and file_of(path) not in DEFINED_ELSEWHERE
        for name in declarations(text)
    }
    return [
        f"{path} defines {name}, which {homes[name]}.h declares"
        for path, text in sources.items()
        for name in sorted(definitions(text))
        if homes.get(name, file_of(path)) != file_of(path)
    ]


def file_circles(sources):
    """Return the circles of files, by what they include and use."""
    arrows = {file_of(path): set() for path in sources}
    for path, text in sources.items():
        arrows[file_of(path)].update(map(file_of, includes(text)))
    for path, header, _ in uses(sources):
        arrows[file_of(path)].add(file_of(header))
    return circles(arrows)


def circles(arrows):
    """Return what is left where all that leads nowhere, or comes from nowhere, goes."""
    left = {start: ends - {start} for start, ends in arrows.items()}
    while True:
        inner = {
            start: ends & left.keys()
            for start, ends in left.items()
            if ends & left.keys() and any(start in other for other in left.values())
        }
        if inner == left:
            return [f"{start} -> {', '.join(sorted(left[start]))}" for start in left]
        left = inner


C_RULES = [
    upward_includes,
    upward_calls,
    undeclared_calls,
    strange_definitions,
    file_circles,
]


@needs_the_sources
@pytest.mark.parametrize("rule", C_RULES)
def test_c_files(rule):
    assert rule(read_sources(EXT)) == []


@needs_the_sources
def test_every_storey_has_files():
    storeys = {path.partition("/")[0] for path in read_sources(EXT)}
    assert storeys == set(STOREYS)


PLANTED = [
    (upward_includes, "keys/ledger.h", '#include "streams/pump.h"', "streams/pump.h"),
    (upward_includes, "system/wire.c", '#include "openssl/libssl.h"', "libssl.h"),
    (
        upward_calls,
        "openssl/finding.c",
        "struct ku_ledger *ku_ledger_of(const void *ssl);\n"
        "int f(void) { return !ku_ledger_of(0); }",
        "uses ku_ledger_of, which keys/opening.h",
    ),
    (
        upward_calls,
        "system/clock.c",
        "void *f(void) { return &ku_key_clock; }",
        "uses ku_key_clock",
    ),
    (
        undeclared_calls,
        "keys/policy.c",
        "int ku_hidden(int); int f(void) { return ku_hidden(1); }",
        "ku_hidden",
    ),
    (
        strange_definitions,
        "streams/traffic.c",
        "int ku_pump_create(struct ku_pump *p) { return 0; }",
        "streams/pump.h",
    ),
    (file_circles, "system/clock.h", '#include "system/wire.h"', "system/wire"),
    (
        file_circles,
        "streams/threads.c",
        "int f(void) { return ku_pump_create(0); }",
        "streams/pump",
    ),
]


@needs_the_sources
@pytest.mark.parametrize(("rule", "path", "line", "said"), PLANTED)
def test_c_rules_can_fail(tmp_path, rule, path, line, said):
    shutil.copytree(EXT, tmp_path / "ext")
    with (tmp_path / "ext" / path).open("a") as file:
        file.write(f"\n/* a comment */\n{line}\n")
    assert said in "".join(rule(read_sources(tmp_path / "ext")))


# -- the Python modules ----------------------------------------------------------------


def imported_by(tree, name):
    """Return the modules of the package that a module imports at once."""
    found = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert not any(n.startswith("pykeyupdate") for n in names), name
        elif isinstance(node, ast.ImportFrom) and node.level:
            stays = name.startswith("_cli") and node.level <= name.count("/")
            found.update(["_cli"] if stays else targets(node))
    return found


def statements(tree):
    """Give a module's statements, but for those in functions and for type checkers."""
    for node in tree.body:
        yield node
        if isinstance(node, (ast.Try, ast.ClassDef)) or is_condition(node):
            yield from statements(node)
            for handler in getattr(node, "handlers", []):
                yield from statements(handler)


def is_condition(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test)


def targets(node):
    """Return what a relative import leads to; the command line is one module."""
    if node.module:
        return [node.module.partition(".")[0]]
    known = {module for line in MODULES for module in line}
    return [alias.name if alias.name in known else "__init__" for alias in node.names]


def read_imports(package, ext):
    """Return what each module imports; the extension does it by name, in C."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").as_posix()
        module = name.partition("/")[0]
        tree = ast.parse(path.read_text("utf-8"))
        found.setdefault(module, set()).update(imported_by(tree, name) - {module})
    found["_keyupdate"] = {
        name
        for path in sorted(ext.rglob("*.c"))
        for name in re.findall(r'"pykeyupdate\.(_\w+)"', path.read_text("utf-8"))
    } - {"_keyupdate"}
    return found


def upward_imports(imports):
    """Say which module imports one that does not stand below it."""
    height = {module: at for at, line in enumerate(MODULES) for module in line}
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if height[other] >= height[module]
    ]


def test_every_module_has_its_place():
    listed = [module for line in MODULES for module in line]
    assert sorted(listed) == sorted(read_imports(PACKAGE, EXT))


@pytest.mark.parametrize("rule", [upward_imports, circles])
def test_python_modules(rule):
    assert rule(read_imports(PACKAGE, EXT)) == []


@needs_the_sources
def test_the_extension_imports_modules_by_name():
    assert "_errors" in read_imports(PACKAGE, EXT)["_keyupdate"]


@pytest.mark.parametrize(
    ("path", "line", "said"),
    [
        ("_errors.py", "from ._policy import RekeyPolicy", "_errors imports _policy"),
        ("_policy.py", "from . import _keyupdate", "_policy imports _keyupdate"),
        ("_sync.py", "from ._cli import main", "_sync imports _cli"),
        ("__init__.py", "from ._cli.bench import main", "__init__ imports _cli"),
        ("_stats.py", "from . import totals", "_stats imports __init__"),
        ("_walk.py", "try:\n    from . import aio\nfinally:\n    pass", "imports aio"),
    ],
)
def test_python_rules_can_fail(tmp_path, path, line, said):
    shutil.copytree(PACKAGE, tmp_path / "package")
    with (tmp_path / "package" / path).open("a") as file:
        file.write(f"\n{line}\n")
    imports = read_imports(tmp_path / "package", EXT)
    assert said in ", ".join(upward_imports(imports))


def test_a_circle_of_modules_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [
        "b -> c",
        "c -> b",
    ]
