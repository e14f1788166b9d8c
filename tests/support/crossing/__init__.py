"""Every call crossed with every callback: see ``tests/stress/callbacks.py``.

``calls`` has the calls, ``scenes`` a case and the callback's trap, ``books`` what two
ends have said. ``pairs`` plays a case with sockets and objects, ``loops`` under an
event loop, and ``judging`` knows which cases there are and what is right.
"""
