"""The chart: rendered by the real helm over a matrix of values, held to the schemas of the oldest and the newest
Kubernetes, and to the server that it starts."""
import copy
import json
import re
import subprocess
import sys
import urllib.request

import pytest
import tools
import yaml
from kinds import operator_errors

KUBERNETES = ["1.25", "1.37"]
MATRIX = {
    "claim": {"models": {"persistentVolumeClaim": "models"}},
    "sub-path": {"models": {"persistentVolumeClaim": "models", "subPath": "repository"}},
    "init-container": {
        "models": {
            "initContainer": {
                "enabled": True,
                "image": "fetch:1",
                "args": ["copy", "/models"],
                "env": [{"name": "FROM", "value": "here"}],
            }
        }
    },
    "object-store": {"models": {"url": "s3://bucket/models"}, "envFrom": [{"secretRef": {"name": "s3"}}]},
    "in-image": {"models": {"inImage": True}},
    "gpu": {
        "models": {"inImage": True},
        "gpu": {"count": 2, "product": "NVIDIA-H100-80GB-HBM3", "runtimeClassName": "nvidia"},
        "strategy": {"maxSurge": 0, "maxUnavailable": 1},
        "nodeSelector": {"zone": "a"},
    },
    "mig": {"models": {"inImage": True}, "gpu": {"count": 1, "resourceName": "nvidia.com/mig-1g.10gb"}},
    "everything": {
        "models": {"persistentVolumeClaim": "models"},
        "replicaCount": 3,
        "server": {"controlMode": "explicit", "loadModels": ["*"], "httpThreads": 4, "extraArgs": ["--log-info=false"]},
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "env": [{"name": "A", "value": "b"}],
        "autoscaling": {"enabled": True},
        "monitoring": {"podMonitor": {"enabled": True, "labels": {"release": "p"}}, "prometheusRule": {"enabled": True}},
        "networkPolicy": {
            "enabled": True,
            "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        },
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "b"},
        "serviceAccount": {"annotations": {"role": "reader"}},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"a": "b"}}}
        ],
        "priorityClassName": "high",
        "extraVolumes": [{"name": "extra", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    },
    "keda": {"models": {"inImage": True}, "keda": {"enabled": True}},
}


def render(helm, tmp_path, values):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return tools.run_helm(helm, "template", "release", tools.CHART, "--namespace", "serving", "--values", file)


@pytest.mark.parametrize("name", MATRIX)
def test_a_rendered_chart_holds(helm, tmp_path, routes, metrics, server_flags, name):
    code, text, error = render(helm, tmp_path, MATRIX[name])
    assert code == 0, error
    assert tools.problems(tools.documents(text), routes, metrics, server_flags) == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", MATRIX)
def test_the_schema_of_kubernetes(helm, tmp_path, name, version):
    _, text, _ = render(helm, tmp_path, MATRIX[name])
    assert schema_errors(text, tmp_path, version) == ""


def schema_errors(text, tmp_path, version):
    # Kinds of operators have no schema here: test_kinds_of_operators looks at them.
    core = [d for d in yaml.safe_load_all(text) if d and not re.search(r"coreos|keda", d["apiVersion"])]
    file = tmp_path / "core.yaml"
    file.write_text(yaml.safe_dump_all(core))
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--kubernetes-version", version, "--quiet", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def of_operators(text):
    return [d for d in yaml.safe_load_all(text) if d and re.search(r"coreos|keda", d["apiVersion"])]


@pytest.mark.parametrize("name, kinds", [("everything", {"PodMonitor", "PrometheusRule"}), ("keda", {"ScaledObject"})])
def test_kinds_of_operators(helm, tmp_path, name, kinds):
    _, text, _ = render(helm, tmp_path, MATRIX[name])
    objects = of_operators(text)
    assert {one["kind"] for one in objects} == kinds
    assert operator_errors(objects) == []


@pytest.mark.parametrize(
    "name, right, wrong, words",
    [
        ("keda", "minReplicaCount: 1", 'minReplicaCount: "one"', "minReplicaCount must be integer"),
        ("keda", "cooldownPeriod:", "coolDownPeriod:", "spec.coolDownPeriod is unknown"),
        ("everything", "interval: 10s", "interval: soon", "interval must match pattern"),
        ("everything", "podMetricsEndpoints:", "podMetricEndpoints:", "podMetricEndpoints is unknown"),
        ("everything", "kind: PrometheusRule", "kind: PrometheusRules", "has no kind PrometheusRules"),
        ("everything", "expr: trireme:queue_seconds", "exp: trireme:queue_seconds", "exp is unknown"),
    ],
)
def test_a_planted_fault_in_a_kind_of_an_operator_is_found(helm, tmp_path, name, right, wrong, words):
    _, text, _ = render(helm, tmp_path, MATRIX[name])
    assert right in text
    faults = operator_errors(of_operators(text.replace(right, wrong)))
    assert any(words in fault for fault in faults), faults


def test_lint(helm, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(MATRIX["everything"]))
    code, out, error = tools.run_helm(helm, "lint", "--strict", tools.CHART, "--values", file)
    assert code == 0, out + error


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, "exactly one of"),
        ({"models": {"inImage": True, "url": "s3://b"}}, "given: url, inImage"),
        ({"models": {"inImage": True}, "sever": {}}, "sever"),
        ({"models": {"inImage": True}, "server": {"exitTimeoutSeconds": "soon"}}, "exitTimeoutSeconds"),
        ({"models": {"inImage": True}, "server": {"controlMode": "explicit"}}, "server.loadModels"),
        ({"models": {"inImage": True}, "server": {"extraArgs": ["--exit-timeout-secs=9"]}}, "server.exitTimeoutSeconds"),
        ({"models": {"inImage": True}, "graceMarginSeconds": 0}, "graceMarginSeconds"),
        ({"models": {"inImage": True}, "autoscaling": {"enabled": True}, "keda": {"enabled": True}}, "fight"),
        ({"models": {"inImage": True}, "strategy": {"maxSurge": 0}}, "cannot both be 0"),
        ({"models": {"initContainer": {"enabled": True}}}, "needs an image"),
        ({"models": {"url": "http://x"}}, "url"),
    ],
)
def test_values_that_cannot_be(helm, tmp_path, values, words):
    code, _, error = render(helm, tmp_path, values)
    assert code != 0 and words in error, error


FAULTS = {
    "does not select the pods": lambda d, o: o["Service"]["spec"]["selector"].update({"app.kubernetes.io/name": "another"}),
    "sends to port 'web'": lambda d, o: o["Service"]["spec"]["ports"][0].update(targetPort="web"),
    "asks /health/alive": lambda d, o: container(d)["livenessProbe"]["httpGet"].update(path="/health/alive"),
    "ask the same": lambda d, o: container(d)["livenessProbe"]["httpGet"].update(path="/v2/health/ready"),
    "is not longer than the drain": lambda d, o: d["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=30),
    "does not know --drain-dely": lambda d, o: container(d)["args"].append("--drain-dely=5"),
    "volume 'shm' is": lambda d, o: container(d)["volumeMounts"].pop(0 if container(d)["volumeMounts"][0]["name"] == "shm" else 1),
    "metric nv_no_such is used": lambda d, o: o["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]["metric"].update(name="nv_no_such"),
    "opens port 'htp'": lambda d, o: o["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0].update(port="htp"),
    "reads port 'metric'": lambda d, o: o["PodMonitor"]["spec"]["podMetricsEndpoints"][0].update(port="metric"),
}


def container(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("words", FAULTS)
def test_a_planted_fault_is_found(helm, tmp_path, routes, metrics, server_flags, words):
    _, text, _ = render(helm, tmp_path, MATRIX["everything"])
    objects = copy.deepcopy(tools.documents(text))
    by_kind = {kind: d for (kind, _), d in objects.items()}
    FAULTS[words](by_kind["Deployment"], by_kind)
    assert any(words in problem for problem in tools.problems(objects, routes, metrics, server_flags))


def test_a_planted_fault_of_the_schema_is_found(helm, tmp_path):
    _, text, _ = render(helm, tmp_path, MATRIX["claim"])
    wrong = text.replace("terminationGracePeriodSeconds:", "terminationGracePeriod:")
    assert wrong != text and "terminationGracePeriod" in schema_errors(wrong, tmp_path, KUBERNETES[-1])


def test_the_metric_that_scales_moves_under_load(server):
    """What the HPA and KEDA read goes up while requests wait, and back."""
    import threading

    def pending():
        with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("nv_inference_pending_request_count{"))

    def ask(i):
        inputs = [{"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": [float(i)] * 4}]
        body = json.dumps({"inputs": inputs}).encode()
        urllib.request.urlopen(server.url("/v2/models/identity/infer"), body, timeout=30).read()

    assert pending() == 0
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    seen = max(pending() for _ in iter(lambda: any(t.is_alive() for t in threads), False))
    for thread in threads:
        thread.join()
    assert seen >= 3 and pending() == 0


def test_rules_are_rules_of_prometheus(helm, tmp_path):
    """Expressions and templates, by Prometheus' own checker."""
    _, text, _ = render(helm, tmp_path, MATRIX["everything"])
    (rule,) = [d for d in of_operators(text) if d["kind"] == "PrometheusRule"]
    assert check_rules(rule["spec"], tmp_path) == ""
    broken = copy.deepcopy(rule["spec"])
    broken["groups"][1]["rules"][0]["expr"] += " >"
    assert "parse error" in check_rules(broken, tmp_path)


def check_rules(spec, tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(spec))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr if done.returncode else ""
