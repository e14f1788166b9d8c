"""pykeyupdate/_installation.py: adding and removing the methods."""

import gc
import inspect
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import warnings

import pytest
from support.sockets import socket_pair

import pykeyupdate
from pykeyupdate import KeyUpdateType, _installation

NAMES = [
    "key_update",
    "get_key_update_type",
    "renegotiate",
    "renegotiate_abbreviated",
    "renegotiate_pending",
    "secure_renegotiation",
    "total_renegotiations",
    "rekey",
    "flush",
    "wait_for_renegotiation",
    "request_client_certificate",
]
CLASSES = [ssl.SSLSocket, ssl.SSLObject, ssl.SSLContext]


@pytest.fixture
def snapshot():
    before = {cls: list(vars(cls).items()) for cls in CLASSES}
    yield before
    pykeyupdate.uninstall()
    assert {cls: list(vars(cls).items()) for cls in CLASSES} == before


def test_install_adds_the_methods_and_nothing_else(snapshot):
    pykeyupdate.install()
    for cls in CLASSES[:2]:
        assert [n for n in vars(cls) if n not in dict(snapshot[cls])] == NAMES
        assert all(vars(cls)[n] is value for n, value in snapshot[cls])
    assert pykeyupdate.is_installed()


def test_installing_twice_is_installing_once(snapshot):
    pykeyupdate.install()
    once = {cls: list(vars(cls).items()) for cls in CLASSES}
    pykeyupdate.install()
    assert {cls: list(vars(cls).items()) for cls in CLASSES} == once
    pykeyupdate.uninstall()
    assert not pykeyupdate.is_installed()
    pykeyupdate.uninstall()


def test_methods_work_on_connections_opened_before(snapshot, make_link, over):
    link13, link12 = make_link("tls13", over), make_link("tls12", over)
    pykeyupdate.install()
    link13.client.key_update()
    assert link13.client.get_key_update_type() is KeyUpdateType.NOT_REQUESTED
    link13.client.do_handshake()
    link13.client.key_update(KeyUpdateType.REQUESTED)
    link13.client.do_handshake()
    assert link13.said("client") == ["KeyUpdate(0)", "KeyUpdate(1)"]
    link12.client.renegotiate()
    assert link12.client.renegotiate_pending() is True
    link12.settle()
    link12.client.renegotiate_abbreviated()
    link12.settle()
    assert link12.client.renegotiate_pending() is False
    assert link12.client.total_renegotiations() == 2
    assert link12.client.secure_renegotiation() is True


def test_methods_have_the_functions_documentation_and_parameters(snapshot):
    pykeyupdate.install()
    for name in NAMES:
        function = getattr(pykeyupdate, name)
        method = getattr(ssl.SSLSocket, name)
        assert method.__doc__ == function.__doc__
        ours = list(inspect.signature(method).parameters.values())[1:]
        theirs = list(inspect.signature(function).parameters.values())[1:]
        assert [(p.name, p.default) for p in ours] == [
            (p.name, p.default) for p in theirs
        ]


def test_a_method_already_there_is_left_alone_and_named(monkeypatch, snapshot):
    def key_update(self):
        """A future Python's own."""

    monkeypatch.setattr(ssl.SSLSocket, "key_update", key_update, raising=False)
    monkeypatch.setattr(ssl.SSLObject, "renegotiate", None, raising=False)
    snapshot.update({cls: list(vars(cls).items()) for cls in CLASSES})
    with pytest.warns(pykeyupdate.PatchWarning) as caught:
        pykeyupdate.install()
    assert ssl.SSLSocket.key_update is key_update
    messages = [str(w.message) for w in caught]
    assert any(f"ssl.SSLSocket.key_update ({__name__}." in m for m in messages)
    assert any("ssl.SSLObject.renegotiate (" in m for m in messages)
    assert ssl.SSLObject.key_update is not key_update
    with pytest.warns(pykeyupdate.PatchWarning):
        pykeyupdate.uninstall()
    assert {cls: list(vars(cls).items()) for cls in CLASSES} == snapshot
    monkeypatch.undo()
    snapshot.update({cls: list(vars(cls).items()) for cls in CLASSES})


def test_somebody_patching_over_us_is_named_and_not_destroyed(snapshot):
    pykeyupdate.install()
    ours = ssl.SSLSocket.key_update

    def wrapper(self, *args):
        return ours(self, *args)

    ssl.SSLSocket.key_update = wrapper
    with pytest.warns(pykeyupdate.PatchWarning, match="wrapper") as caught:
        pykeyupdate.uninstall()
    assert len(caught) == 1
    assert "left ssl.SSLSocket.key_update" in str(caught[0].message)
    assert ssl.SSLSocket.key_update is wrapper
    del ssl.SSLSocket.key_update


def test_warnings_point_at_the_caller(monkeypatch, snapshot):
    monkeypatch.setattr(ssl.SSLSocket, "key_update", None, raising=False)
    snapshot.update({cls: list(vars(cls).items()) for cls in CLASSES})
    block = pykeyupdate.installed()
    for call in (
        lambda: block.__enter__(),
        lambda: block.__exit__(None, None, None),
        pykeyupdate.install,
        pykeyupdate.uninstall,
    ):
        with pytest.warns(pykeyupdate.PatchWarning) as caught:
            call()
        assert {w.filename for w in caught} == {__file__}
    monkeypatch.undo()
    snapshot.update({cls: list(vars(cls).items()) for cls in CLASSES})


def test_installed_is_for_the_length_of_a_block(snapshot):
    with pykeyupdate.installed():
        assert pykeyupdate.is_installed()
        with pykeyupdate.installed():
            assert hasattr(ssl.SSLObject, "key_update")
        assert hasattr(ssl.SSLObject, "key_update")
    assert not hasattr(ssl.SSLObject, "key_update")
    with pytest.raises(ZeroDivisionError), pykeyupdate.installed():
        raise ZeroDivisionError
    assert not pykeyupdate.is_installed()


def test_installed_leaves_what_install_installed(snapshot):
    pykeyupdate.install()
    with pykeyupdate.installed():
        pass
    assert pykeyupdate.is_installed()
    assert hasattr(ssl.SSLSocket, "key_update")


def test_uninstall_inside_a_block_takes_effect_at_once(snapshot):
    with pykeyupdate.installed():
        pykeyupdate.uninstall()
        assert not pykeyupdate.is_installed()
        assert not hasattr(ssl.SSLSocket, "key_update")


def test_many_threads_at_once_end_as_they_began(snapshot):
    start = threading.Barrier(8)
    failures = []

    def work():
        start.wait()
        try:
            for _ in range(100):
                with pykeyupdate.installed():
                    assert hasattr(ssl.SSLSocket, "key_update")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not pykeyupdate.is_installed()


FORK = """
import os, signal, threading, time, pykeyupdate
from pykeyupdate import _installation

held = threading.Event()

def hold():
    with _installation._lock:
        held.set()
        time.sleep(0.2)

threading.Thread(target=hold).start()
held.wait()
pid = os.fork()
signal.alarm(20)
pykeyupdate.install()
pykeyupdate.uninstall()
if pid == 0:
    os._exit(0)
raise SystemExit(os.waitpid(pid, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_a_child_can_install_whatever_other_threads_did():
    """A lock that another thread held at the fork would never be free again."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True)


def test_a_signal_handler_can_install(snapshot):
    """It runs in the thread that may be in the middle of the same."""

    def handler(number, frame):
        pykeyupdate.install()

    before = signal.signal(signal.SIGINT, handler)
    try:
        with _installation._lock:
            signal.raise_signal(signal.SIGINT)
        assert pykeyupdate.is_installed()
    finally:
        signal.signal(signal.SIGINT, before)
        pykeyupdate.uninstall()


def test_import_order_does_not_matter():
    script = """
from ssl import SSLSocket, SSLObject
class Before(SSLSocket): pass
import pykeyupdate
pykeyupdate.install()
assert Before.key_update is SSLSocket.key_update
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_warning_in_the_usual_case(snapshot):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pykeyupdate.install()
        pykeyupdate.uninstall()


# -- managed sockets -------------------------------------------------------------------


def make_socket(context):
    """Return the socket that a context makes, before its handshake."""
    near, far = socket_pair()
    with far:
        return context.wrap_socket(
            near, do_handshake_on_connect=False, server_hostname="localhost"
        )


def made_by(context):
    with make_socket(context) as sock:
        return type(sock)


def test_install_managed_is_for_all_contexts_and_taken_back(snapshot):
    old = ssl.create_default_context()
    with make_socket(old) as before:
        pykeyupdate.install(managed=True)
        assert type(before) is ssl.SSLSocket
        assert made_by(old) is pykeyupdate.SSLSocket
        assert made_by(ssl.create_default_context()) is pykeyupdate.SSLSocket
        pykeyupdate.install()
        pykeyupdate.install(managed=True)
        pykeyupdate.uninstall()
    assert made_by(old) is ssl.SSLSocket


def test_both_hooks_and_rules_are_installed_and_taken_back(snapshot):
    def rules():
        made = ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
        )
        return getattr(made, "_rules", None)

    hourly, strict = (
        pykeyupdate.RekeyPolicy.anssi(),
        pykeyupdate.PeerLimits(renegotiation="never"),
    )
    assert rules() is None
    pykeyupdate.install(policy=hourly)
    assert rules()[:2] == (hourly, pykeyupdate.PeerLimits())
    pykeyupdate.install(managed=True)
    assert rules()[:2] == (hourly, pykeyupdate.PeerLimits())
    pykeyupdate.install(policy=None, limits=strict)
    assert rules()[:2] == (None, strict)
    pykeyupdate.uninstall()
    assert rules() is None
    pykeyupdate.install(managed=True)
    assert rules()[:2] == (pykeyupdate.RekeyPolicy(), pykeyupdate.PeerLimits())
    pykeyupdate.uninstall()


def test_a_context_keeps_what_it_was_given(snapshot):
    context = ssl.create_default_context()
    pykeyupdate.manage(context, policy=None)
    pykeyupdate.install(policy=pykeyupdate.RekeyPolicy.niap())
    try:
        with make_socket(context) as sock:
            assert sock._rules.policy is None
    finally:
        pykeyupdate.uninstall()


def test_install_alone_manages_nothing(snapshot):
    pykeyupdate.install()
    assert made_by(ssl.create_default_context()) is ssl.SSLSocket


def test_manage_is_for_one_context():
    context = ssl.create_default_context()
    assert pykeyupdate.manage(context) is None
    pykeyupdate.manage(context)
    assert made_by(context) is pykeyupdate.SSLSocket
    assert made_by(ssl.create_default_context()) is ssl.SSLSocket
    del context.sslsocket_class
    assert made_by(context) is ssl.SSLSocket


def test_what_is_managed_stays_so_after_uninstall(snapshot):
    context = ssl.create_default_context()
    pykeyupdate.manage(context)
    pykeyupdate.install(managed=True)
    pykeyupdate.uninstall()
    assert made_by(context) is pykeyupdate.SSLSocket


def test_manage_refuses_what_it_would_replace():
    class Own(ssl.SSLSocket):
        pass

    class Derived(pykeyupdate.SSLSocket):
        pass

    context = ssl.create_default_context()
    context.sslsocket_class = Own
    with pytest.raises(TypeError, match=r"Own.*derive that class from pykeyupdate"):
        pykeyupdate.manage(context)
    assert made_by(context) is Own
    context.sslsocket_class = Derived
    pykeyupdate.manage(context)
    assert made_by(context) is Derived
    for wrong in (None, ssl.SSLContext, socket.socket):
        with pytest.raises(TypeError, match=r"takes an ssl\.SSLContext, not"):
            pykeyupdate.manage(wrong)


@pytest.mark.parametrize("hook", ["sslsocket_class", "sslobject_class"])
def test_another_class_in_the_hook_is_left_there(snapshot, hook):
    original = vars(ssl.SSLContext)[hook]
    other = type("Other", (original,), {})
    setattr(ssl.SSLContext, hook, other)
    try:
        with pytest.warns(pykeyupdate.PatchWarning, match=rf"{hook}.*Other"):
            pykeyupdate.install(managed=True)
        assert vars(ssl.SSLContext)[hook] is other
        with pytest.warns(pykeyupdate.PatchWarning, match=rf"{hook}.*Other"):
            pykeyupdate.uninstall()
        assert vars(ssl.SSLContext)[hook] is other
    finally:
        setattr(ssl.SSLContext, hook, original)


# -- other classes in the place of ssl's -----------------------------------------------


class Green:
    """What gevent has in the place of ``ssl.SSLSocket``: no socket of ``ssl``'s."""


class Plain(ssl.SSLContext):
    """What replaces ``ssl.SSLContext`` and changes nothing where connections begin."""


def content(*classes):
    return [list(vars(cls).items()) for cls in classes]


def make_object(context):
    return context.wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
    )


@pytest.fixture
def context_class():
    """Make classes of contexts; all are gone afterwards, as install() looks at each."""

    def make(**methods):
        return type("Context", (ssl.SSLContext,), methods)

    yield make
    gc.collect()


def delegating(*methods, **own_classes):
    """Return what makes contexts that have another make their connections."""
    original = ssl.SSLContext

    def make(cls, protocol):
        context, inside = original.__new__(cls, protocol), original(protocol)
        for hook, own in own_classes.items():
            setattr(inside, hook, own)
        for method in methods:
            setattr(context, method, getattr(inside, method))
        return context

    return make


def test_a_subclass_of_the_context_class_is_no_matter(snapshot, monkeypatch):
    before = content(Plain)
    monkeypatch.setattr(ssl, "SSLContext", Plain)
    context = Plain(ssl.PROTOCOL_TLS_CLIENT)
    pykeyupdate.install(managed=True)
    assert made_by(context) is pykeyupdate.SSLSocket
    pykeyupdate.uninstall()
    assert made_by(context) is ssl.SSLSocket
    assert content(Plain) == before
    pykeyupdate.manage(context)
    assert made_by(context) is pykeyupdate.SSLSocket
    monkeypatch.undo()


def test_a_context_of_the_class_before_is_taken(monkeypatch):
    context = ssl.create_default_context()
    monkeypatch.setattr(ssl, "SSLContext", Plain)
    pykeyupdate.manage(context)
    assert made_by(context) is pykeyupdate.SSLSocket


@pytest.mark.parametrize("name", ["SSLSocket", "SSLObject", "SSLContext"])
@pytest.mark.parametrize("derived", [True, False])
def test_uninstall_finds_what_it_touched(snapshot, monkeypatch, name, derived):
    """Another class may have come in its place, or gone, since ``install()``."""
    original = getattr(ssl, name)
    other = type("Other", (original,) if derived else (), {})
    before = content(other)
    pykeyupdate.install(managed=True)
    monkeypatch.setattr(ssl, name, other)
    pykeyupdate.uninstall()
    assert content(*CLASSES) == list(snapshot.values())
    pykeyupdate.install()
    assert pykeyupdate.is_installed()
    monkeypatch.undo()
    pykeyupdate.uninstall()
    assert content(other) == before


def test_a_class_in_the_place_of_the_socket_class_gets_the_methods(
    snapshot, monkeypatch
):
    pykeyupdate.install()
    before = content(Green)
    monkeypatch.setattr(ssl, "SSLSocket", Green)
    assert not pykeyupdate.is_installed()
    pykeyupdate.install()
    assert pykeyupdate.is_installed()
    assert [name for name in vars(Green) if name in NAMES] == NAMES
    monkeypatch.setattr(ssl, "SSLSocket", Plain)  # and yet another
    pykeyupdate.uninstall()
    assert content(Green) == before
    monkeypatch.undo()


@pytest.mark.parametrize("base", [object, ssl.SSLSocket])
def test_what_cannot_be_managed_is_refused_whole(snapshot, monkeypatch, base):
    other = type("Other", (base,), {"__module__": "greens"})
    context = ssl.create_default_context()
    monkeypatch.setattr(ssl, "SSLSocket", other)
    with pytest.raises(TypeError, match=r"is <class 'greens\.Other'>.*rekey\(\).*as t"):
        pykeyupdate.manage(context)
    assert vars(context) == {}
    for keywords in ({"managed": True}, {"policy": None}, {"limits": None}):
        with pytest.warns(
            pykeyupdate.PatchWarning, match=r"did nothing.*Other"
        ) as all_:
            pykeyupdate.install(**keywords)
        assert len(all_) == 1
        assert all_[0].filename == __file__
        assert content(*CLASSES) == list(snapshot.values())
        assert not pykeyupdate.is_installed()
    context.sslobject_class = pykeyupdate.SSLObject  # as the message says
    assert make_object(context)._rules.policy == pykeyupdate.RekeyPolicy()
    with pykeyupdate.installed():
        pass
    monkeypatch.undo()


def test_a_refused_install_keeps_the_one_before(snapshot, monkeypatch):
    pykeyupdate.install(policy=None)
    monkeypatch.setattr(ssl, "SSLSocket", Green)
    with pytest.warns(pykeyupdate.PatchWarning, match="did nothing"):
        pykeyupdate.install(policy=pykeyupdate.RekeyPolicy.tiny())
    with pytest.warns(pykeyupdate.PatchWarning, match="managed no longer.*Green"):
        pykeyupdate.install()
    monkeypatch.undo()
    with make_socket(ssl.create_default_context()) as sock:
        assert sock._rules.policy is None


def test_a_class_that_takes_no_methods_leaves_nothing_done(snapshot, monkeypatch):
    monkeypatch.setattr(ssl, "SSLObject", int)
    for call in (
        pykeyupdate.install,
        lambda: pykeyupdate.install(managed=True),
        lambda: pykeyupdate.installed().__enter__(),
    ):
        with pytest.raises(TypeError, match="int"):
            call()
        assert content(*CLASSES) == list(snapshot.values())
    monkeypatch.undo()
    with pykeyupdate.installed():
        pass
    assert not pykeyupdate.is_installed()


@pytest.mark.parametrize(
    "methods", [["wrap_socket"], ["wrap_bio"], ["wrap_socket", "wrap_bio"]]
)
def test_a_context_inside_another_is_managed(context_class, methods):
    context = context_class(__new__=delegating(*methods))(ssl.PROTOCOL_TLS_CLIENT)
    pykeyupdate.manage(context, policy=None)
    assert made_by(context) is pykeyupdate.SSLSocket
    assert type(make_object(context)) is pykeyupdate.SSLObject
    assert make_object(context)._rules.policy is None
    pykeyupdate.manage(context)
    with make_socket(context) as sock:
        assert sock._rules.policy == pykeyupdate.RekeyPolicy()


def test_the_classes_of_a_context_inside_another_go_first(context_class):
    """They may verify certificates, as truststore's do."""
    asked = []

    class Socket(ssl.SSLSocket):
        def do_handshake(self, block=False):
            asked.append(self)
            super().do_handshake(block)

    class Object(ssl.SSLObject):
        def do_handshake(self):
            asked.append(self)
            super().do_handshake()

    own = delegating(
        "wrap_socket", "wrap_bio", sslsocket_class=Socket, sslobject_class=Object
    )
    context = context_class(__new__=own)(ssl.PROTOCOL_TLS_CLIENT)
    pykeyupdate.manage(context)
    pykeyupdate.manage(context)
    made = make_object(context)
    with make_socket(context) as sock:
        assert isinstance(sock, Socket)
        assert isinstance(sock, pykeyupdate.SSLSocket)
        assert isinstance(made, Object)
        assert isinstance(made, pykeyupdate.SSLObject)
        assert type(sock).__name__ == "ManagedSocket"
        sock.setblocking(False)
        with pytest.raises(OSError):  # its peer is gone
            sock.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        made.do_handshake()
    assert asked == [sock, made]
    assert pykeyupdate.stats(made)


def test_a_context_that_passes_the_call_on_is_managed(context_class, snapshot):
    calls = []

    def wrap_socket(self, *args, **kwargs):
        calls.append(kwargs)
        return ssl.SSLContext.wrap_socket(self, *args, **kwargs)

    cls = context_class(wrap_socket=wrap_socket)
    client, server = cls(ssl.PROTOCOL_TLS_CLIENT), cls(ssl.PROTOCOL_TLS_SERVER)
    for context in (client, server):
        pykeyupdate.manage(context)
    assert [c["do_handshake_on_connect"] for c in calls] == [False, False]
    assert made_by(client) is pykeyupdate.SSLSocket
    with pytest.warns(pykeyupdate.PatchWarning, match="may not reach all"):
        pykeyupdate.install(managed=True)
    assert made_by(cls(ssl.PROTOCOL_TLS_CLIENT)) is pykeyupdate.SSLSocket
    pykeyupdate.uninstall()


def test_a_context_that_makes_sockets_by_itself_is_refused(context_class, snapshot):
    class Own(ssl.SSLSocket):
        pass

    def wrap_socket(self, sock, **kwargs):
        return Own._create(sock, context=self, **kwargs)

    cls = context_class(wrap_socket=wrap_socket)
    context = cls(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TypeError, match=r"its wrap_socket\(\) makes .*Own.* by itself"):
        pykeyupdate.manage(context)
    assert vars(context) == {}
    with pytest.warns(
        pykeyupdate.PatchWarning, match=r"not reach.*Context'> has a wrap_socket\(\)"
    ):
        pykeyupdate.install(managed=True)
    assert made_by(ssl.create_default_context()) is pykeyupdate.SSLSocket
    pykeyupdate.uninstall()


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_method_of_ssls_class_that_was_replaced_is_asked(
    snapshot, monkeypatch, by_itself
):
    class Own(ssl.SSLSocket):
        pass

    ssls = ssl.SSLContext.wrap_socket

    def wrap_socket(self, sock, *args, **kwargs):
        if by_itself:
            return Own._create(sock, *args, context=self, **kwargs)
        return ssls(self, sock, *args, **kwargs)

    context = ssl.create_default_context()
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap_socket)
    snapshot[ssl.SSLContext] = content(ssl.SSLContext)[0]
    if by_itself:
        with pytest.raises(TypeError, match=r"makes .*Own.* by itself"):
            pykeyupdate.manage(context)
        with pytest.warns(pykeyupdate.PatchWarning, match="nothing.*Own.* by itself"):
            pykeyupdate.install(managed=True)
    else:
        pykeyupdate.install(managed=True)
        assert made_by(context) is pykeyupdate.SSLSocket
        pykeyupdate.uninstall()
        pykeyupdate.manage(context)
        assert made_by(context) is pykeyupdate.SSLSocket
    monkeypatch.undo()
    snapshot[ssl.SSLContext] = content(ssl.SSLContext)[0]


def test_a_class_derived_from_ours_is_reached(context_class, snapshot):
    class Derived(pykeyupdate.SSLSocket):
        pass

    cls = context_class(sslsocket_class=Derived)
    pykeyupdate.install(managed=True)
    assert made_by(cls(ssl.PROTOCOL_TLS_CLIENT)) is Derived
    pykeyupdate.uninstall()


def test_a_hook_without_a_class_is_refused(snapshot, monkeypatch):
    context = ssl.create_default_context()
    context.sslobject_class = None
    with pytest.raises(TypeError, match="its sslobject_class is None; rekey"):
        pykeyupdate.manage(context)
    monkeypatch.setattr(ssl.SSLContext, "sslsocket_class", None)
    with pytest.warns(pykeyupdate.PatchWarning, match="sslsocket_class is None"):
        pykeyupdate.install(managed=True)
    assert not pykeyupdate.is_installed()
    monkeypatch.undo()


def test_what_is_no_connection_is_refused(context_class, snapshot):
    class Odd:
        context = None

    cls = context_class(wrap_bio=lambda *args, **keywords: Odd())
    context = cls(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TypeError, match=r"its wrap_bio\(\) makes .*Odd.* by itself"):
        pykeyupdate.manage(context)
    with pytest.warns(pykeyupdate.PatchWarning, match=r"not reach.*a wrap_bio\(\)"):
        pykeyupdate.install(limits=None)
    pykeyupdate.uninstall()


@pytest.mark.parametrize("own", [type("Own", (ssl.SSLObject,), {}), ssl.SSLObject])
def test_a_replaced_context_class_that_cannot_be_reached(
    context_class, snapshot, monkeypatch, own
):
    """It looks at a hook of its own, even where ssl's class is in that now."""
    make = delegating("wrap_socket", "wrap_bio", sslobject_class=own)
    monkeypatch.setattr(ssl, "SSLContext", context_class(__new__=make))
    said = f"nothing.*ssl.SSLContext is .*{own.__name__}"
    with pytest.warns(pykeyupdate.PatchWarning, match=said):
        pykeyupdate.install(managed=True)
    assert content(*CLASSES) == list(snapshot.values())
    monkeypatch.undo()


def test_a_class_with_a_hook_of_its_own_is_not_reached(context_class, snapshot):
    cls = context_class(sslsocket_class=ssl.SSLSocket)
    with pytest.warns(pykeyupdate.PatchWarning, match="not reach.*Context"):
        pykeyupdate.install(managed=True)
    assert made_by(cls(ssl.PROTOCOL_TLS_CLIENT)) is ssl.SSLSocket
    pykeyupdate.uninstall()


def test_a_replaced_context_class_that_has_ssls_inside_is_reached(
    context_class, snapshot, monkeypatch
):
    own = context_class(__new__=delegating("wrap_socket", "wrap_bio"))
    monkeypatch.setattr(ssl, "SSLContext", own)
    pykeyupdate.install(managed=True)
    assert made_by(own(ssl.PROTOCOL_TLS_CLIENT)) is pykeyupdate.SSLSocket
    pykeyupdate.uninstall()
    monkeypatch.undo()


def test_a_context_that_insists_on_a_handshake_does_not_hang(context_class):
    def wrap_socket(self, sock, **kwargs):
        kwargs["do_handshake_on_connect"] = True
        return ssl.SSLContext.wrap_socket(self, sock, **kwargs)

    context = context_class(wrap_socket=wrap_socket)(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TypeError, match="asked for one it raises ValueError"):
        pykeyupdate.manage(context)
    assert vars(context) == {}


def test_a_context_that_cannot_be_asked_is_refused(context_class):
    def wrap_socket(self, sock, *, proxy):
        raise AssertionError

    cls = context_class(wrap_socket=wrap_socket)
    context = cls(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(
        TypeError, match=r"asked for one it raises TypeError.*do_handshake_on_c"
    ):
        pykeyupdate.manage(context)


@pytest.mark.parametrize("name", ["__new__", "__init__", "__init_subclass__"])
def test_no_context_of_a_strangers_class_is_made(context_class, snapshot, name):
    def tell(*arguments, **keywords):
        raise AssertionError

    cls = context_class(wrap_socket=tell, wrap_bio=tell)
    setattr(cls, name, tell)
    said = r"Context'> has a wrap_socket\(\), wrap_bio\(\) of its own"
    with pytest.warns(pykeyupdate.PatchWarning, match=said):
        pykeyupdate.install(managed=True)
    pykeyupdate.uninstall()


class Meta(type(ssl.SSLContext)):
    """One whose classes answer nothing."""

    def tell(cls, *arguments):
        raise AssertionError

    __getattr__ = __eq__ = __hash__ = __repr__ = __subclasses__ = __call__ = tell
    __instancecheck__ = __subclasscheck__ = tell


def test_classes_that_answer_nothing_are_no_matter(snapshot):
    cls = Meta("Odd", (ssl.SSLContext,), {"wrap_bio": None})
    with pytest.warns(pykeyupdate.PatchWarning, match=r"a wrap_bio\(\) of its own"):
        pykeyupdate.install(managed=True)
    pykeyupdate.uninstall()
    del cls
    gc.collect()


@pytest.mark.parametrize("name", ["__dict__", "__getattribute__"])
def test_a_context_that_hides_what_it_has_is_refused(context_class, name):
    def tell(*arguments):
        raise ZeroDivisionError

    hides = {"__dict__": property(lambda self: {}), "__getattribute__": tell}
    context = context_class(**{name: hides[name]})(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(TypeError, match="__dict__ keeps nothing|ZeroDivisionError"):
        pykeyupdate.manage(context)


class Frozen(ssl.SSLContext):
    """One that takes some attributes, or none."""

    refused = ignored = ()

    def __setattr__(self, name, value):
        if name in self.refused:
            raise PermissionError("frozen")
        if name in self.ignored:
            return
        super().__setattr__(name, value)


@pytest.mark.parametrize("how", ["refused", "ignored"])
@pytest.mark.parametrize("hook", ["sslsocket_class", "sslobject_class"])
def test_a_context_that_takes_no_attribute_is_as_it_was(monkeypatch, how, hook):
    context = Frozen(ssl.PROTOCOL_TLS_CLIENT)
    context.note = "its own"
    before = {**vars(context)}
    monkeypatch.setattr(Frozen, how, (hook,))
    with pytest.raises(TypeError, match=r"manage\(.*Frozen.*does not take what is set"):
        pykeyupdate.manage(context)
    assert vars(context) == before
    monkeypatch.undo()
    pykeyupdate.manage(context, policy=None)
    before = {**vars(context)}
    monkeypatch.setattr(Frozen, "refused", (hook,))
    with pytest.raises(TypeError):
        pykeyupdate.manage(context)
    assert vars(context) == before


@pytest.mark.parametrize("name", ["SSLContext", "SSLSocket", "SSLObject"])
def test_a_function_in_the_place_of_a_class(snapshot, monkeypatch, make_link, name):
    original = getattr(ssl, name)
    link = make_link("tls13", "socket")
    monkeypatch.setattr(ssl, name, lambda *args, **kw: original(*args, **kw))
    pykeyupdate.install()
    assert pykeyupdate.is_installed()
    pykeyupdate.rekey(link.client)
    with pytest.raises(pykeyupdate.NotATLSConnectionError):
        pykeyupdate.rekey(object())
    if name == "SSLSocket":
        with pytest.warns(pykeyupdate.PatchWarning, match="did nothing.*lambda"):
            pykeyupdate.install(managed=True)
    else:
        pykeyupdate.install(managed=True)
        made = make_object(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        assert type(made) is pykeyupdate.SSLObject
    pykeyupdate.uninstall()
    monkeypatch.undo()


def test_a_function_that_makes_no_context(snapshot, monkeypatch):
    monkeypatch.setattr(ssl, "SSLContext", lambda protocol: None)
    with pytest.warns(pykeyupdate.PatchWarning, match="did nothing.*NoneType"):
        pykeyupdate.install(managed=True)
    monkeypatch.undo()


@pytest.mark.parametrize("name", ["SSLContext", "SSLSocket", "SSLObject"])
def test_import_finds_the_classes_that_ssl_came_with(name):
    script = f"""
import ssl
before = ssl.{name}
ssl.{name} = lambda *args, **kw: before(*args, **kw)
import pykeyupdate
from pykeyupdate import _originals as originals
assert before in (originals.CONTEXT, originals.SOCKET, originals.OBJECT)
pykeyupdate.install()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_context_may_be_managed_by_its_own_method():
    class Own(ssl.SSLContext):
        def wrap_bio(self, *args, **kwargs):
            pykeyupdate.manage(self)
            return super().wrap_bio(*args, **kwargs)

    context = Own(ssl.PROTOCOL_TLS_CLIENT)
    made = context.wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
    )
    assert isinstance(made, pykeyupdate.SSLObject)
