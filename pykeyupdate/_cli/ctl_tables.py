"""The answers of a control socket as text for people (``ctl.py``)."""

import time
from typing import Any, Optional

_Answer = dict[str, Any]

_COLUMNS = (
    "number",
    "peer",
    "label",
    "role",
    "version",
    "cipher",
    "sent age",
    "records",
    "received age",
    "records",
    "idle",
    "updates",
    "state",
)

_WIDEST = 60  # characters of a name; --json has it whole


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return columns as wide as their widest cell."""
    lines = [list(head), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in lines
    )


def connections(answer: _Answer) -> str:
    """Return one line for each connection."""
    rows = [_row(it) for it in answer["connections"]]
    shown = f"{len(rows)} of {answer['total']} connections"
    return f"{table(_COLUMNS, rows)}\n{shown}, process {answer['pid']}"


def _row(info: _Answer) -> list[str]:
    counts = info["counts"]
    return [
        str(info["number"]),
        _safe(info["peer"]),
        _safe(info["label"]),
        info["role"],
        info["version"] or "-",
        info["cipher"] or "-",
        duration(info["sent"]["age_seconds"]),
        str(info["sent"]["records"]),
        duration(info["received"]["age_seconds"]),
        str(info["received"]["records"]),
        duration(info["idle_seconds"]),
        f"{counts['key_updates_sent']}/{counts['key_updates_received']}",
        _state(info),
    ]


def _state(info: _Answer) -> str:
    states = [
        "" if info["version"] else "in its first handshake",
        "owes an answer" if info["answer_owed"] else "",
        "waits for an answer" if info["request_outstanding"] else "",
        f"no new keys: {info['obstacle']}" if info["obstacle"] else "",
    ]
    return "; ".join(filter(None, states)) or "-"


def _safe(text: Optional[str]) -> str:
    """Return what a program or a peer chose, short and without control characters."""
    if not text:
        return "-"
    shown = text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
    return "".join(c if c.isprintable() else "?" for c in shown)


def totals(answer: _Answer) -> str:
    """Return the counts, and the keys by age and use."""
    found = answer["totals"]
    lines = [
        f"process {answer['pid']}: {found['open']} managed connections open, "
        f"{found['opened']} opened",
        "",
        *_counts(found),
    ]
    for name in ("sent", "received"):
        lines += ["", *_survey(name, found[name])]
    return "\n".join(lines)


def _counts(found: _Answer) -> list[str]:
    rows = []
    for group, values in found.items():
        if isinstance(values, dict) and "oldest_seconds" not in values:
            prefix = "" if group == "counts" else f"{group}."
            rows += [[prefix + name, str(value)] for name, value in values.items()]
    return table(("count", ""), rows).splitlines()


def _survey(name: str, survey: _Answer) -> list[str]:
    oldest = survey["oldest_seconds"]
    age = "-" if oldest is None else duration(oldest)
    return [
        f"keys under which data is {name}: the oldest is {age} old",
        _histogram("age", survey["ages"], duration),
        _histogram("records", survey["records"], str),
    ]


def _histogram(name: str, histogram: _Answer, unit: Any) -> str:
    bounds = [unit(bound) for bound in histogram["bounds"]]
    names = [*[f"to {bound}" for bound in bounds], f"over {bounds[-1]}"]
    cells = [f"{text}: {n}" for text, n in zip(names, histogram["counts"]) if n]
    return f"  by {name}: {', '.join(cells) or 'none'}"


def policy(answer: _Answer) -> str:
    """Return the rules of new connections and of those that are open."""
    parts = ["new connections of contexts without rules of their own", ""]
    parts += _rules(answer["default"])
    for rules in answer["in_force"]:
        parts += ["", f"{rules['connections']} open connections", ""]
        parts += _rules(rules)
    return "\n".join(parts)


def _rules(rules: _Answer) -> list[str]:
    lines = []
    for name in ("policy", "limits"):
        values = rules[name] or {"(none)": ""}
        lines += [f"  {name}.{key} {value}".rstrip() for key, value in values.items()]
    return lines


def rekeyed(answer: _Answer) -> str:
    """Return what `rekey` has done."""
    lines = [
        f"{answer['done']} have new keys, {answer['waiting']} get them with their "
        f"owner's next I/O, {answer['impossible']} cannot have them"
    ]
    lines += [f"  {count}: {text}" for text, count in answer["obstacles"].items()]
    return "\n".join(lines)


def event(answer: _Answer) -> str:
    """Return an event as a line."""
    moment = time.strftime("%H:%M:%S", time.localtime(answer["at"]))
    about = answer["connection"] or {}
    rest = {
        name: value
        for name, value in answer.items()
        if name not in ("event", "at", "connection") and value is not None
    }
    words = [
        moment,
        answer["event"],
        f"{about.get('number', '-')}",
        about.get("role", "-"),
        _safe(about.get("peer")),
        _safe(about.get("label")),
        *[f"{name}={_safe(str(value))}" for name, value in rest.items()],
    ]
    return "  ".join(words)


def top(totals_answer: _Answer, rows: _Answer) -> str:
    """Return a picture of the process: its totals in two lines, and connections."""
    found = totals_answer["totals"]
    counts = found["counts"]
    ages = [found[name]["oldest_seconds"] for name in ("sent", "received")]
    oldest = " and ".join("-" if age is None else duration(age) for age in ages)
    return (
        f"process {totals_answer['pid']}: {found['open']} open, oldest keys {oldest} "
        f"(sent, received), {time.strftime('%H:%M:%S')}\n"
        f"key updates {counts['key_updates_sent']} sent, "
        f"{counts['key_updates_received']} received; {counts['impossible']} "
        f"impossible, {counts['cut_off']} cut off\n\n{connections(rows)}"
    )


def duration(seconds: float) -> str:
    """Return a time in its two greatest units."""
    for size, unit, smaller, part in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)}{unit}" + (f"{rest}{part}" if rest else "")
    return f"{seconds:.1f}s"
