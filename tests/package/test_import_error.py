"""pykeyupdate/_import_error.py, and what a failed import tells the user."""

import importlib.util
import inspect
import os
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import pytest

import pykeyupdate
from pykeyupdate import _keyupdate

PACKAGE = Path(pykeyupdate.__file__).parent


def run(*arguments, path, site=False):
    """Run Python with one path and without site-packages (-S): an editable install
    would find the built extension for any copy of the package.
    """
    return subprocess.run(
        [sys.executable, *([] if site else ["-S"]), *arguments],
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.fixture
def unbuilt(tmp_path):
    """The package as in a fresh checkout, without its extension."""
    import shutil

    shutil.copytree(
        PACKAGE,
        tmp_path / "pykeyupdate",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )
    return tmp_path


@pytest.fixture
def unusable(unbuilt):
    """An interpreter where the extension says that it cannot work."""
    (unbuilt / "pykeyupdate" / "_keyupdate.py").write_text(
        'raise ImportError("pykeyupdate cannot work here: it is Tuesday")\n'
    )
    return unbuilt


def test_import_without_the_extension_names_the_remedy(unbuilt):
    result = run("-c", "import pykeyupdate", path=unbuilt)
    assert result.returncode == 1
    assert "ImportError: pykeyupdate's extension module is not there" in result.stderr
    assert "pip install -e ." in result.stderr


def test_import_without_the_extension_can_be_logged(unbuilt):
    """Python 3.15 imports the parent of a missing module to print the traceback.

    Not with ``-S``: so the script itself removes the finder of an editable install.
    """
    script = """
import logging, sys, traceback
sys.meta_path[:] = [it for it in sys.meta_path if "_frozen" in str(it)]
try:
    import pykeyupdate
except ImportError as error:
    logging.exception("no keys")
    traceback.TracebackException.from_exception(error)  # looks at its context, too
"""
    result = run("-c", script, path=unbuilt, site=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("ERROR:root:no keys\nTraceback")
    assert result.stderr.count("pykeyupdate's extension module is not there") == 1
    assert "No module named 'pykeyupdate._keyupdate'" in result.stderr


def test_import_where_it_cannot_work_names_the_cause(unusable):
    result = run("-c", "import pykeyupdate", path=unusable)
    assert result.returncode == 1
    assert result.stderr.endswith(
        "ImportError: pykeyupdate cannot work here: it is Tuesday\n"
    )


def test_a_program_run_with_m_gets_the_import_error_too(unusable):
    """Only our own command line goes on after it."""
    (unusable / "theirs").mkdir()
    (unusable / "theirs" / "__init__.py").write_text("import pykeyupdate\n")
    (unusable / "theirs" / "doctor.py").write_text("print('not reached')\n")
    result = run("-m", "theirs.doctor", path=unusable)
    assert result.returncode == 1
    assert "it is Tuesday" in result.stderr
    assert result.stdout == ""


def test_a_process_that_has_lost_a_class_of_ssl():
    """What gevent and eventlet do loses none: integrations/test_replaced_classes.py."""
    script = """
import ssl
ssl.SSLSocket.__module__ = "theirs"
try:
    import pykeyupdate
except ImportError as error:
    assert "SSLSocket" in str(error) and "theirs" in str(error), error
    assert "Import pykeyupdate before" in str(error), error
else:
    raise AssertionError("not refused")
"""
    result = run("-c", script, path=PACKAGE.parent)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["demo", "bench"])
def test_commands_say_why_they_cannot_run(unusable, command):
    result = run("-m", "pykeyupdate", command, path=unusable)
    assert result.returncode == 2
    assert "does not work here: it is Tuesday" in result.stderr


def test_doctor_explains_the_import_error(unusable):
    result = run("-m", "pykeyupdate", "doctor", path=unusable)
    assert result.returncode == 1
    assert "pykeyupdate does not work here: it is Tuesday" in result.stdout


def test_doctor_runs_without_an_ssl_module(unbuilt):
    (unbuilt / "ssl.py").write_text("raise ImportError('no _ssl')\n")
    result = run("-m", "pykeyupdate", "doctor", "--json", path=unbuilt)
    assert result.returncode == 1, result.stderr
    assert '"error": "no _ssl"' in result.stdout


def test_each_import_makes_a_module_of_its_own():
    """Multi-phase initialisation: no state is shared between copies."""
    spec = importlib.util.find_spec("pykeyupdate._keyupdate")
    copies = [importlib.util.module_from_spec(spec) for _ in range(2)]
    for copy in copies:
        spec.loader.exec_module(copy)
    assert copies[0].__dict__ is not copies[1].__dict__
    assert copies[0].libssl == copies[1].libssl == _keyupdate.libssl


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="a free-threaded build"
)
def test_import_leaves_the_gil_off():
    script = "import pykeyupdate, sys; assert not sys._is_gil_enabled()"
    result = run("-W", "error", "-c", script, path=PACKAGE.parent)
    assert result.returncode == 0, result.stderr


IN_SUB_INTERPRETERS = """
import sys, threading
if sys.version_info >= (3, 14):
    from concurrent import interpreters
    make = interpreters.create
    run = lambda interpreter, code: interpreter.exec(code)
else:
    import importlib
    module = importlib.import_module(
        "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    )
    make = module.create
    def run(interpreter, code):
        failure = module.run_string(interpreter, code)
        assert failure is None, failure
code = sys.argv[1].format(path=sys.path)
if "pykeyupdate" in code: import pykeyupdate
threads = [threading.Thread(target=run, args=(make(), code)) for _ in range(4)]
failures = []
threading.excepthook = failures.append
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
"""
STOCK = """
import sys; sys.path[:] = {path!r}
import ssl
context = ssl.create_default_context()
bios = ssl.MemoryBIO(), ssl.MemoryBIO()
connection = context.wrap_bio(*bios, server_hostname="localhost")
"""
OURS = """
import pykeyupdate
try:
    pykeyupdate.key_update(connection)
except pykeyupdate.HandshakeNotDoneError:
    pass
else:
    raise AssertionError
assert pykeyupdate.get_key_update_type(connection) is pykeyupdate.KeyUpdateType.NONE
with pykeyupdate.installed():
    assert connection.renegotiate_pending() is False
"""


def run_in_sub_interpreters(stock, ours):
    """Run ours where stock does not crash: that is all that it may do."""
    run_code = partial(run, "-c", IN_SUB_INTERPRETERS, path=PACKAGE.parent)
    result = run_code(stock)
    if result.returncode not in (0, 1):
        pytest.skip(f"this Python's ssl module crashes there ({result.returncode})")
    assert result.returncode == 0, result.stderr
    result = run_code(ours)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="one GIL for all before 3.12")
def test_sub_interpreters_with_their_own_gil():
    """In a process of its own: what goes wrong there takes the process down."""
    run_in_sub_interpreters(STOCK, STOCK + OURS)


CALLED_BACK = """
import sys; sys.path[:] = {path!r}
import ssl
MANAGE
context, server = (ssl.SSLContext(p) for p in (ssl.PROTOCOL_TLS_CLIENT,
                                               ssl.PROTOCOL_TLS_SERVER))
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
server.load_cert_chain(CHAIN)
server._msg_callback = context._msg_callback = lambda *_: None
a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
ends = context.wrap_bio(a, b), server.wrap_bio(b, a, server_side=True)
for end in ends * 2:
    try: end.do_handshake()
    except Exception as error:  # before 3.10 it may be another interpreter's class
        if type(error).__name__ != "SSLWantReadError": raise
for _ in range(9):
    ends[0].write(b"data")
    assert ends[1].read() == b"data"
"""


def test_callbacks_in_sub_interpreters(certificate, tmp_path):
    """Before 3.12 the ssl module's take the GIL as if in the main interpreter."""
    chain = tmp_path / "chain.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
    code = CALLED_BACK.replace("CHAIN", repr(str(chain)))
    tiny = "import pykeyupdate as k; k.install(policy=k.RekeyPolicy.tiny())"
    run_in_sub_interpreters(code.replace("MANAGE", ""), code.replace("MANAGE", tiny))


def run_without_libraries(script):
    return run("-W", "error", "-c", script, path=PACKAGE.parent)


@pytest.mark.parametrize("name", ["aio", "testing"])
def test_submodules_come_when_they_are_used(name):
    result = run_without_libraries(f"""
import sys, pykeyupdate
assert "pykeyupdate.{name}" not in sys.modules and "asyncio" not in sys.modules
assert "{name}" in dir(pykeyupdate) and "rekey" in dir(pykeyupdate)
assert pykeyupdate.{name} is sys.modules["pykeyupdate.{name}"]
assert pykeyupdate.{name}.__doc__
""")
    assert result.returncode == 0, result.stderr


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="^module 'pykeyupdate' has no .*'rekye'$"):
        pykeyupdate.rekye  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'rekye'"):
        from pykeyupdate import rekye  # noqa: F401


def test_prometheus_comes_with_prometheus_client():
    pytest.importorskip("prometheus_client")
    assert "prometheus" in dir(pykeyupdate)
    assert pykeyupdate.prometheus is sys.modules["pykeyupdate.prometheus"]


def test_prometheus_without_prometheus_client_names_the_remedy():
    for use in (
        "pykeyupdate.prometheus",
        "exec('from pykeyupdate import prometheus')",
        "exec('import pykeyupdate.prometheus')",
    ):
        result = run_without_libraries(f"import pykeyupdate; {use}")
        assert result.returncode == 1
        assert "pip install 'pykeyupdate[prometheus]'" in result.stderr
        assert "No module named 'prometheus_client'" in result.stderr
    result = run_without_libraries(
        "import inspect, pykeyupdate; print(len(inspect.getmembers(pykeyupdate)))"
    )
    assert int(result.stdout) > 50, result.stderr


def test_public_names_are_these():
    public = {n for n in vars(pykeyupdate) if not n.startswith("_")}
    submodules = {n for n in public if inspect.ismodule(getattr(pykeyupdate, n))}
    assert public - submodules == set(pykeyupdate.__all__)
    assert pykeyupdate.__all__ == sorted(
        pykeyupdate.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)
    )
