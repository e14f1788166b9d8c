"""Crosses every call with every callback: see ``tests/stress/callbacks.py``.

``calls`` has the calls, ``scenes`` a case and the callback's trap, and ``books`` what
the two ends have said. ``pairs`` plays a case with sockets and objects, ``loops`` plays
one under an event loop. ``judging`` knows which cases there are and what is right.
"""
