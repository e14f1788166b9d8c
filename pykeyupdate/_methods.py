"""The functions as methods, which ``install()`` adds and the managed classes have."""

from typing import Any, Callable, Literal, Optional, Union

from . import _keyupdate, _sync
from ._arguments import Seconds
from ._constants import KeyUpdateType
from ._rekeying import ClientCertificate


class Methods:
    """Each method calls the function of the same name."""

    def key_update(
        self: Any,
        update_type: Union[KeyUpdateType, Literal[0, 1]] = KeyUpdateType.NOT_REQUESTED,
    ) -> None:
        return _keyupdate.key_update(self, update_type)

    def get_key_update_type(self: Any) -> KeyUpdateType:
        return _keyupdate.get_key_update_type(self)

    def renegotiate(self: Any) -> None:
        return _keyupdate.renegotiate(self)

    def renegotiate_abbreviated(self: Any) -> None:
        return _keyupdate.renegotiate_abbreviated(self)

    def renegotiate_pending(self: Any) -> bool:
        return _keyupdate.renegotiate_pending(self)

    def secure_renegotiation(self: Any) -> bool:
        return _keyupdate.secure_renegotiation(self)

    def total_renegotiations(self: Any) -> int:
        return _keyupdate.total_renegotiations(self)

    def rekey(self: Any, *, request_peer: bool = False) -> None:
        _sync.rekey(self, request_peer=request_peer)

    def flush(self: Any) -> None:
        _sync.flush(self)

    def wait_for_renegotiation(self: Any, timeout: Optional[Seconds] = None) -> None:
        _sync.wait_for_renegotiation(self, timeout)

    def request_client_certificate(
        self: Any, timeout: Optional[Seconds] = None
    ) -> ClientCertificate:
        return _sync.request_client_certificate(self, timeout)


METHODS: dict[str, Callable[..., object]] = {
    name: method for name, method in vars(Methods).items() if name[0] != "_"
}
for _name, _method in METHODS.items():
    _method.__doc__ = (
        getattr(_sync, _name, None) or getattr(_keyupdate, _name)
    ).__doc__
