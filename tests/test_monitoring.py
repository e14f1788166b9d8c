"""docs/monitoring: the alert rules and the dashboard name metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pykeyupdate._metrics import METRICS

FOLDER = Path(__file__).parents[1] / "docs" / "monitoring"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="no documentation here")

NAMES = {
    f"pykeyupdate_{metric.name}{'_total' * (metric.kind == 'counter')}": metric
    for metric in METRICS
}


def rules():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]


def dashboard():
    return json.loads((FOLDER / "grafana.json").read_text("utf-8"))


def expressions_of_rules():
    return [rule["expr"] for group in rules() for rule in group["rules"]]


def expressions_of_panels():
    panels = dashboard()["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("read", [expressions_of_rules, expressions_of_panels])
def test_every_metric_and_label_exists(read):
    for expression in read():
        used = re.findall(r"pykeyupdate_\w+", expression)
        assert used
        assert {*used} <= {*NAMES}, expression
        labels = {
            label.strip()
            for names in re.findall(r"\bby \(([^)]*)\)", expression)
            for label in names.split(",")
        }
        assert labels <= {"job", *(it for use in used for it in NAMES[use].labels)}


def test_the_dashboard_shows_every_metric():
    shown = re.findall(r"pykeyupdate_\w+", "\n".join(expressions_of_panels()))
    assert {*shown} == {*NAMES}


def test_every_alert_says_what_to_do():
    for group in rules():
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("info", "warning", "critical")
            assert rule["annotations"].keys() == {"summary", "description"}


def test_panels_do_not_overlap():
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(places)


def test_prometheus_takes_the_rules():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    subprocess.run([promtool, "check", "rules", FOLDER / "alerts.yml"], check=True)
