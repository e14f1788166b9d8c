"""Call one function often, both accepted and refused; exit 1 on a leak.

Usage: leak.py FUNCTION. Two measures: the blocks that Python has allocated (a lost
reference keeps one), and the process's memory (for a lost malloc() in C or OpenSSL).
"""

import ssl
import sys
from functools import partial

from measure import gained

import pykeyupdate

CALLS = 20_000
KILOBYTES = 512


def make_connection():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context.wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"
    )


def scenarios(function):
    """What the function is given, and how it reacts in a process that leaks nothing."""
    connection = make_connection()
    yield "connection", lambda: function(connection)
    yield "inner object", lambda: function(connection._sslobj)
    yield "no connection", lambda: function(object())
    yield "no argument", lambda: function()
    yield "new connection", lambda: function(make_connection())


def repeat(call, times):
    for _ in range(times):
        try:
            call()
        except (pykeyupdate.PyKeyUpdateError, TypeError):
            pass


def main():
    function = getattr(pykeyupdate, sys.argv[1])
    failed = False
    for name, call in scenarios(function):
        times = CALLS // 20 if name == "new connection" else CALLS
        blocks, kilobytes = gained(partial(repeat, call, times))
        print(f"{name:<16} {blocks:6} blocks {kilobytes:6} kB")
        # caches and free lists move a little; a leak is a block a call
        failed |= blocks > times // 2 or kilobytes > KILOBYTES
    sys.exit(failed)


main()
