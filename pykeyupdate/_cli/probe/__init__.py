"""Find out whether a server survives key updates and renegotiation, and how.

It connects several times as a client, changes keys as a policy would, and says
something harmless inside TLS to see that data still arrives. Nothing is logged in to.
"""

import argparse
import contextlib
import queue
from functools import partial
from typing import Union

from .. import inputs, tables
from ..exit_codes import CannotRun, program, start_thread
from . import payloads, report, targets
from .connection import Settings
from .examine import Report, examine
from .payloads import Payload
from .starttls import DIALOGS
from .targets import Target

_EPILOG = """\
exit codes:
  0  keys can be changed on live connections, within the limits that are advised
  1  the server ends the connection, or has no way to change keys
  2  wrong usage, or the command cannot run here
  3  a host could not be probed: no connection, no TLS, no time
with --check, those of Nagios: 0 OK, 1 WARNING (limits, or no way to change keys),
2 CRITICAL (ends the connection), 3 UNKNOWN

examples:
  %(prog)s example.org
  %(prog)s --starttls smtp mail.example.org:587
  %(prog)s --payload 'PING\\r\\n' --cafile ca.pem redis.example.org:6380
  %(prog)s --hosts hosts.txt --json
"""


def main(argv: list[str]) -> int:
    """Probe one host or many, print what was found, and return the exit code."""
    chosen = parser().parse_args(argv)
    settings = Settings(
        payload=partial(_payload, chosen),
        starttls=chosen.starttls,
        servername=chosen.servername,
        cafile=chosen.cafile,
        insecure=chosen.insecure,
        certificate=chosen.cert,
        key=chosen.key,
        timeout=chosen.timeout,
        limits=chosen.limits,
    )
    inputs.check_key(chosen.key, chosen.cert)
    hosts = _targets(chosen)
    reports = _probe(hosts, settings, chosen.jobs)
    if chosen.json:
        return report.show_json(reports)
    if chosen.check:
        return report.show_check(reports)
    if chosen.hosts is None:
        return report.show_one(reports[0])
    return report.show_many(reports)


def parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    made = argparse.ArgumentParser(
        prog=f"{program()} probe",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("target", metavar="HOST:PORT", nargs="?", help="what to probe (port: 443)")
    add("--hosts", metavar="FILE", help="probe each HOST:PORT of a file (-: stdin)")
    add("--jobs", type=inputs.count, default=8, metavar="N", help="hosts at a time (8)")
    add("--starttls", choices=DIALOGS, help="begin with this protocol's STARTTLS")
    add(
        "--http",
        metavar="PATH",
        help="say HEAD PATH (the default where no protocol is known: HEAD /)",
    )
    add(
        "--payload", metavar="TEXT", help="say this; \\r \\n \\t \\\\ \\x00 are escapes"
    )
    add("--servername", metavar="NAME", help="the name to ask for and to verify")
    add("--cafile", metavar="FILE", help="trust these authorities, too")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--cert", metavar="FILE", help="client certificate (PEM), to be used if asked")
    add("--key", metavar="FILE", help="its key, if that is in another file")
    add(
        "--timeout",
        type=inputs.seconds,
        default=30.0,
        metavar="S",
        help="seconds for a host, all included (30); a connection may take a third",
    )
    add(
        "--limits",
        action="store_true",
        help="also find out how many updates the "
        "server takes (up to 100 in a row): this ends connections of some servers",
    )
    output = made.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON for programs")
    output.add_argument(
        "--check",
        action="store_true",
        help="print one line, and exit as a Nagios plugin",
    )
    return made


def _payload(chosen: argparse.Namespace, target: Target) -> Payload:
    """Return what to say to a target: what was chosen, or what its port is for."""
    name = chosen.servername or target.host
    if chosen.payload is not None:
        return payloads.raw(chosen.payload)
    protocol = chosen.starttls or payloads.protocol_of_port(target.port)
    if protocol and chosen.http is None:
        return payloads.of_protocol(protocol, name)
    return payloads.http(name, chosen.http or "/")


def _targets(chosen: argparse.Namespace) -> list[Target]:
    found = []
    if chosen.target is not None:
        found = [targets.parse(chosen.target, chosen.starttls)]
    if chosen.hosts is not None:
        found += targets.read(chosen.hosts, chosen.starttls)
    if not found:
        raise CannotRun("nothing to probe: give HOST:PORT or --hosts FILE")
    return found


def _probe(hosts: list[Target], settings: Settings, jobs: int) -> list[Report]:
    """Probe all hosts, some at a time, and keep their order."""
    if len(hosts) == 1:
        with tables.progress(f"probing {hosts[0]}") as say:
            return [examine(hosts[0], settings, say)]
    todo: queue.SimpleQueue[tuple[int, Target]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Union[Report, CannotRun]]] = queue.SimpleQueue()
    for place in enumerate(hosts):
        todo.put(place)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                number, target = todo.get_nowait()
                try:
                    done.put((number, examine(target, settings, lambda _: None)))
                except CannotRun as reason:
                    done.put((number, reason))

    for _ in range(min(jobs, len(hosts))):
        start_thread(work)  # no pool: Ctrl-C would wait for its threads
    found: dict[int, Report] = {}
    with tables.progress("probing") as say:
        while len(found) < len(hosts):
            number, report = done.get()
            if isinstance(report, CannotRun):
                raise report
            found[number] = report
            say(f"{len(found)} of {len(hosts)} done")
    return [found[number] for number in range(len(hosts))]
