"""Exceptions of signal handlers, which the package must never swallow."""

import signal

NEVER_HANDLED = {
    number for number in signal.Signals if number.name in ("SIGKILL", "SIGSTOP")
}


def is_of_signal_handler(error: BaseException) -> bool:
    """Return whether an exception was raised by a signal handler of the program.

    Python runs a handler between any two bytecodes of the main thread, so its exception
    comes out of whatever code is running. An ``except Exception`` that is meant for
    other errors may catch it. The traceback shows the difference: it contains a
    function that is a signal's handler.
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
        # a function, a method, or a callable object
        for called in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004
            codes.add(getattr(called, "__code__", None))
    return codes - {None}
