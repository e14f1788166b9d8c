import ssl
from typing import Final, Literal, TypedDict

from typing_extensions import TypeAlias

from .constants import KeyUpdateType as KeyUpdateType

_Connection: TypeAlias = ssl.SSLSocket | ssl.SSLObject

class _LibSSL(TypedDict):
    path: str
    found_by: str
    version: str
    version_number: int
    missing: list[str]
    ktls_can_rekey: bool

libssl: Final[_LibSSL]

def key_update(
    conn: _Connection,
    /,
    update_type: KeyUpdateType | Literal[0, 1] = KeyUpdateType.NOT_REQUESTED,
) -> None: ...
def get_key_update_type(conn: _Connection, /) -> KeyUpdateType: ...
def renegotiate(conn: _Connection, /) -> None: ...
def renegotiate_abbreviated(conn: _Connection, /) -> None: ...
def renegotiate_pending(conn: _Connection, /) -> bool: ...
def secure_renegotiation(conn: _Connection, /) -> bool: ...
def total_renegotiations(conn: _Connection, /) -> int: ...
