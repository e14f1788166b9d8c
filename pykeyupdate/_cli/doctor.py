"""Say whether and how pykeyupdate works on this interpreter, on one screen.

It must run even if the extension cannot be imported, so it imports the extension itself
and keeps the error.
"""

import argparse
import importlib
import json
import platform
import sys
import sysconfig
import textwrap
from typing import Any, NamedTuple

from .._import_error import NOT_BUILT, PACKAGE
from .exit_codes import program

_CONTROLS = (
    "SSL_key_update",
    "SSL_get_key_update_type",
    "SSL_renegotiate",
    "SSL_renegotiate_abbreviated",
    "SSL_renegotiate_pending",
)


class Hazard(NamedTuple):
    """A known problem of a range of versions: first <= version < fixed."""

    first: int
    fixed: int
    text: str


_NEVER = sys.maxsize
_OPENSSL_HAZARDS = (
    Hazard(
        0x1010100F,
        0x1010102F,
        "OpenSSL before 1.1.1b ends a connection at the 33rd key update of its peer.",
    ),
    Hazard(
        0x1010100F,
        0x1010104F,
        "OpenSSL before 1.1.1d breaks a connection whose peer requests a key update "
        "while a write is incomplete (SSLWantWriteError).",
    ),
    Hazard(
        0x1010100F,
        0x101010CF,
        "OpenSSL before 1.1.1l cannot change keys with data waiting: key_update() "
        "raises ReadPendingError until it has been received.",
    ),
    Hazard(
        0x1010100F,
        0x30000060,
        "OpenSSL before 3.0.6 writes no key updates to a key log file.",
    ),
)
_PYTHON_HAZARDS = (
    Hazard(
        0x030D0600,
        0x030D0700,
        "Python 3.13.6 deadlocks when one thread waits in recv() and another calls any "
        "method of the same connection, including do_handshake().",
    ),
    Hazard(
        0x03100000,
        _NEVER,
        "This Python is newer than those that pykeyupdate was tested on (3.9 to 3.15); "
        "the layout of its connections was still proved at import.",
    ),
)
_TWO_THREADS = (
    "Two threads in one connection, one in recv() and one in send(): OpenSSL forbids "
    "this, and any key update, even the peer's, can then crash the process. "
    "pykeyupdate.manage(context) makes sockets for which this is safe."
)
_NO_RULES = (
    "OpenSSL never changes keys by itself, and it processes as many key updates as a "
    "peer sends. pykeyupdate.install(managed=True), or manage(context), handles both."
)
_HAS_KERNEL_TLS = ("linux", "freebsd")  # of OpenSSL's, in all its versions
_KERNEL_TLS = (
    "With OP_ENABLE_KTLS a peer's key update ends the connection (this OpenSSL or this "
    "kernel cannot change the kernel's keys); key_update() raises KernelTLSError."
)


def main(argv: list[str]) -> int:
    """Print the report; return 0 if pykeyupdate works here, 1 if not."""
    arguments = parser().parse_args(argv)
    report = examine()
    print(json.dumps(report, indent=2) if arguments.json else render(report))
    return 0 if report["works"] else 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    made = argparse.ArgumentParser(prog=f"{program()} doctor")
    made.add_argument("--json", action="store_true", help="print JSON for programs")
    return made


def version_line() -> str:
    """Return the versions that a bug report needs, in one line."""
    return "pykeyupdate {pykeyupdate}, Python {python}, {openssl}".format(**examine())


def examine() -> dict[str, Any]:
    """Return all findings as plain data."""
    extension, error = _import("pykeyupdate._keyupdate")
    ssl, ssl_error = _import("ssl")
    libssl = dict(extension.libssl) if extension else None
    return {
        "works": extension is not None,
        "error": error if ssl else ssl_error,
        "pykeyupdate": sys.modules[PACKAGE].__version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "executable": sys.executable,
        "platform": platform.platform(),
        "openssl": ssl.OPENSSL_VERSION if ssl else "no ssl module",
        "extension": extension.__file__ if extension else None,
        "libssl": libssl,
        "controls": {
            name: libssl is not None and name not in libssl["missing"]
            for name in _CONTROLS
        },
        "hazards": hazards(libssl, sys.hexversion, sys.platform) if libssl else [],
    }


def hazards(libssl: dict[str, Any], python: int, system: str) -> list[str]:
    """Return what is known to be unsafe with this OpenSSL, Python and system."""
    openssl = libssl["version_number"]
    texts = [_TWO_THREADS, _NO_RULES]
    texts += [h.text for h in _OPENSSL_HAZARDS if h.first <= openssl < h.fixed]
    texts += [h.text for h in _PYTHON_HAZARDS if h.first <= python < h.fixed]
    if system.startswith(_HAS_KERNEL_TLS) and not libssl["ktls_can_rekey"]:
        texts.append(_KERNEL_TLS)
    return texts


def render(report: dict[str, Any]) -> str:
    """Return the report as text."""
    gil = ", free-threaded" if report["free_threaded"] else ""
    lines = [
        f"pykeyupdate  {report['pykeyupdate']}",
        f"Python       {report['python']} ({report['implementation']}{gil})",
        f"             {report['executable']}",
        f"OpenSSL      {report['openssl']}",
    ]
    if report["libssl"]:
        lines += [
            f"libssl       {report['libssl']['path']}",
            f"             found by {report['libssl']['found_by']}",
            "controls     "
            + "\n             ".join(
                f"{name:<28} {'yes' if there else 'MISSING'}"
                for name, there in report["controls"].items()
            ),
            "beware       " + "\n             ".join(map(_fold, report["hazards"])),
        ]
    verdict = "pykeyupdate works here."
    if not report["works"]:
        verdict = f"pykeyupdate does not work here: {report['error']}"
    elif not all(report["controls"].values()):
        verdict = "pykeyupdate works here, without the controls marked MISSING."
    return "\n".join([*lines, f"verdict      {_fold(verdict)}"])


def _fold(text: str) -> str:
    """Wrap, but leave paths and options as they are."""
    lines = textwrap.wrap(text, 74, break_long_words=False, break_on_hyphens=False)
    return "\n             ".join(lines)


def _import(name: str) -> tuple[Any, Any]:
    """Return (module, None), or (None, reason) if the import failed."""
    try:
        return importlib.import_module(name), None
    except ModuleNotFoundError as error:
        return None, NOT_BUILT if error.name == "pykeyupdate._keyupdate" else str(error)
    except ImportError as error:
        return None, str(error).replace("pykeyupdate cannot work here: ", "")
