"""Threads for tests."""

import threading

DEADLOCK = 30  # seconds; nothing here takes one


class Threads:
    """Threads whose exceptions are not lost, and who must come to an end."""

    def __init__(self):
        self.started = []

    def start(self, work, *args):
        box = {}

        def run():
            try:
                box["value"] = work(*args)
            except BaseException as error:
                box["error"] = error

        thread = threading.Thread(target=run, daemon=True)
        self.started.append(thread)
        thread.start()
        return lambda: self.result(thread, box)

    def result(self, thread, box):
        thread.join(DEADLOCK)
        assert not thread.is_alive(), "deadlock"
        if "error" in box:
            raise box["error"]
        return box["value"]
