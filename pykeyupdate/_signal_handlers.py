"""Exceptions of signal handlers, which no code of the package may keep to itself."""

import signal


def is_of_signal_handler(error: BaseException) -> bool:
    """Return whether an exception has come out of a signal handler of the program's.

    Python runs a handler between any two bytecodes of the main thread, so that what it
    raises comes out of whatever code stands there: here that may be an ``except
    Exception`` which is about something else. The traceback tells: a function that is
    a signal's handler is in it.
    """
    codes = _codes_of_handlers()
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _codes_of_handlers() -> set[object]:
    codes = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        # a function, a method, or an object that can be called
        for called in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004
            codes.add(getattr(called, "__code__", None))
    return codes - {None}
