"""``pykeyupdate run --log``: what the logger says, on the program's standard error."""

import json
import logging
import sys
import time


class _JSON(logging.Formatter):
    """One JSON object a line, with the fields of an event and an exception, if any."""

    _fields = ("event", "reason", "limit", "peer", "label", "connection")

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        if hasattr(record, "event"):
            line.update((name, getattr(record, name)) for name in self._fields)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


_FORMATS = {
    "text": logging.Formatter("pykeyupdate[%(process)d] %(levelname)s: %(message)s"),
    "json": _JSON(),
}


def start(form: str) -> None:
    """Log all that pykeyupdate says, whatever the program does with its own logs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATS[form])
    logger = logging.getLogger("pykeyupdate")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
