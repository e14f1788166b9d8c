"""As much HTTP as a client needs to be tried: a request, and an answer with a text."""

import re
from typing import Callable

from .actions import ACTIONS, Action

_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ")
_REQUEST = re.compile(rb"(\w+) (\S+) HTTP/1\.[01]\r?\n")
_LONGEST = 100  # characters of a request that are shown


def is_request(data: bytes) -> bool:
    """Return whether a client speaks HTTP."""
    return data.startswith(_METHODS) and _REQUEST.match(data) is not None


def first_line(data: bytes) -> str:
    """Return the request for people, without anything that a terminal would obey."""
    text = data.split(b"\r\n")[0].decode("latin-1")[:_LONGEST]
    return "".join(c if c.isprintable() else "?" for c in text)


def answer(data: bytes, do: Callable[[Action], str]) -> bytes:
    """Do what a request's path says, and return the answer."""
    request = _REQUEST.match(data)
    assert request is not None  # noqa: S101 (is_request() has looked)
    method, path = request[1], request[2].decode("latin-1").partition("?")[0]
    action = next((a for a in ACTIONS.values() if f"/{a.path}" == path), None)
    status, kind = "200 OK", "text/plain"
    if action is not None:
        body = do(action) + "\n"
    elif path == "/":
        body, kind = _page(), "text/html"
    else:
        status, body = "404 Not Found", "not here\n"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\n"
        f"Content-Length: {len(body.encode())}\r\nCache-Control: no-store\r\n\r\n"
    )
    return (head if method == b"HEAD" else head + body).encode()


def _page() -> str:
    rows = (
        f'<li><a href="/{a.path}">/{a.path}</a>: {a.text}' for a in ACTIONS.values()
    )
    return f"<!doctype html><title>pykeyupdate serve</title><ul>{''.join(rows)}</ul>\n"
