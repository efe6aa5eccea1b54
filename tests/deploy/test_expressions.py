"""What dashboards and alerts ask, asked of a real Prometheus that reads a real server under load: an expression that finds
nothing there would find nothing in a cluster either."""
import contextlib
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import tools
import yaml
from test_helm import MATRIX, of_operators, render
from trireme_server import free_port

DASHBOARD = tools.ROOT / "deploy/grafana/trireme.json"
# The labels that a PodMonitor gives to all that it reads.
POD = {"namespace": "serving", "pod": "release-trireme-7d4b9c-x2x4z"}
# Metrics of GPUs come from the backend's own table, since there is none here.
GAUGES = tools.ROOT / "backends/tensorrtllm/src/backend/gauges.rs"


class Prometheus:
    """Reads the server twice a second and follows the chart's rules every second."""

    def __init__(self, folder, server, rules):
        self.port = free_port()
        (folder / "rules.yaml").write_text(rules)
        target = {"targets": [f"127.0.0.1:{server.metrics}"], "labels": POD}
        (folder / "prometheus.yml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"], "scrape_configs": [{"job_name": "pods", "static_configs": [target]}],
        }))
        self.log = (folder / "log").open("w+")
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                   f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)

    def ask(self, expression):
        """The series that an expression gives."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=30) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from None

    def until(self, expression, seconds=90):
        """Waits for an expression to give something that is a number."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                found = [series for series in self.ask(expression) if series["value"][1] != "NaN"]
                if found:
                    return found
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end, f"nothing comes of {expression}\n{self.output()}"
            time.sleep(0.2)

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def end(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def load(server, ended):
    """A little of everything until `ended`: tensors, the same ones again, tokens, and what fails."""
    number = 0

    def post(path, body):
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(server.url(path), json.dumps(body).encode(), timeout=60).read()

    while not ended.is_set():
        number += 1
        for value in (number, number, 1):
            post("/v2/models/identity/infer", {"inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [value]}]})
        post("/v2/models/failing/infer", {"inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [1]}]})
        prompt = [1 + (number + n) % 400 for n in range(40)]
        post("/v1/completions", {"model": "tiny", "prompt": prompt, "max_tokens": 8, "ignore_eos": True})


@pytest.fixture(scope="module")
def rules(helm, tmp_path_factory):
    """The chart's rules, as Prometheus gets them from the operator."""
    _, text, _ = render(helm, tmp_path_factory.mktemp("rules"), MATRIX["everything"])
    (rule,) = [d for d in of_operators(text) if d["kind"] == "PrometheusRule"]
    return rule["spec"]


@pytest.fixture(scope="module")
def prometheus(server, rules, tmp_path_factory):
    ended = threading.Event()
    threads = [threading.Thread(target=load, args=(server, ended)) for _ in range(2)]
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), server, yaml.safe_dump(rules).replace("15s", "1s"))
    for thread in threads:
        thread.start()
    try:
        yield prometheus
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        prometheus.end()


def panels():
    dashboard = json.loads(DASHBOARD.read_text())
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]


def filled(expression):
    """An expression of the dashboard with its variables at what they are in the beginning."""
    for name, value in (("$__rate_interval", "1m"), ("$namespace", ".*"), ("$model", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def of_gpus(expression):
    return set(re.findall(r"\bnv_(?:gpu|energy)_\w+", expression))


def selectors(expression):
    """The parts of an expression that name series, without ranges."""
    return re.findall(r"\b(?:nv|trireme)[a-zA-Z0-9_:]*(?:\{[^}]*\})?", expression)


@pytest.mark.parametrize("title, expression", panels())
def test_a_panel_shows_something(prometheus, title, expression):
    if gauges := of_gpus(expression):
        assert all(f'"{name}"' in GAUGES.read_text() for name in gauges)
        return
    prometheus.until(filled(expression))


def test_the_rules_find_what_they_are_about(prometheus, rules):
    every = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(every) >= 11
    for rule in every:
        if "record" in rule:
            prometheus.until(rule["record"])
        # An alert's whole expression gives nothing as long as all is well.
        found = selectors(rule["expr"])
        assert found, rule
        for selector in found:
            prometheus.until(selector)
    # Evaluated, and none in error.
    with urllib.request.urlopen(f"http://127.0.0.1:{prometheus.port}/api/v1/rules", timeout=30) as answer:
        told = [rule for group in json.load(answer)["data"]["groups"] for rule in group["rules"]]
    assert len(told) == len(every) and {rule["health"] for rule in told} == {"ok"}, told


@pytest.mark.parametrize("wrong", [
    'rate(nv_inference_request_succes{namespace=~".*"}[1m])',
    'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="share"}',
    'sum by (model) (trireme_llm_first_token_seconds_bucket)',
])
def test_a_planted_fault_finds_nothing(prometheus, wrong):
    prometheus.until("up == 1")
    with pytest.raises(AssertionError, match="nothing comes of"):
        prometheus.until(wrong, 2)


def test_the_alert_of_failing_requests_is_raised(prometheus):
    """One model fails all that it is asked: the alert waits for its five minutes, and for no other model."""
    alerts = prometheus.until('ALERTS{alertname="TriremeRequestsFail"}')
    assert {(alert["metric"]["model"], alert["metric"]["namespace"]) for alert in alerts} == {("failing", "serving")}
