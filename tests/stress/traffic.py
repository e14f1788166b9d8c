"""Managed sockets of MQTT, WebSocket and STOMP clients: an hour's traffic each.

    python tests/stress traffic  (eight minutes)

It runs ``tests/integrations/test_threaded_clients.py`` with a minute for each client;
as a test, two seconds are enough. Arguments are pytest's.
"""

import os
import subprocess
import sys
from pathlib import Path

TEST = Path(__file__).parents[1] / "integrations" / "test_threaded_clients.py"


def main():
    command = [sys.executable, "-m", "pytest", "-rP", str(TEST), *sys.argv[1:]]
    seconds = os.environ.get("PYKEYUPDATE_TRAFFIC_SECONDS", "60")
    return subprocess.call(
        command, env={**os.environ, "PYKEYUPDATE_TRAFFIC_SECONDS": seconds}
    )


if __name__ == "__main__":
    sys.exit(main())
