"""The examples for KServe, held to its published types, to Kubernetes and to the server that they start."""
import copy

import pytest
import tools
import yaml
from kinds import KServe
from test_helm import KUBERNETES, schema_errors

FILES = {"V1alpha1ClusterServingRuntime": "cluster-serving-runtime.yaml", "V1beta1InferenceService": "inference-service.yaml"}


def example(kind):
    return yaml.safe_load((tools.ROOT / "deploy/kserve" / FILES[kind]).read_text())


@pytest.fixture(params=KUBERNETES)
def kserve(request, tmp_path):
    def pod_errors(spec):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        return schema_errors(yaml.safe_dump(pod), tmp_path, request.param)

    return KServe(pod_errors)


@pytest.mark.parametrize("kind", FILES)
def test_an_example_is_of_its_kind(kserve, kind):
    assert kserve.errors(kind, example(kind)) == []


@pytest.mark.parametrize("kind, plant, words", [
    ("V1alpha1ClusterServingRuntime", lambda s: s.update(protocolVersion=s.pop("protocolVersions")), "protocolVersion is unknown"),
    ("V1alpha1ClusterServingRuntime", lambda s: s["supportedModelFormats"][0].update(priority="2"), "priority must be of type int"),
    ("V1alpha1ClusterServingRuntime", lambda s: s.pop("supportedModelFormats") and s.update(containers={}), "containers must be a list"),
    ("V1alpha1ClusterServingRuntime", lambda s: s.pop("containers"), "containers is missing"),
    ("V1alpha1ClusterServingRuntime", lambda s: s["containers"][0].update(readynessProbe={}), "readynessProbe"),
    ("V1beta1InferenceService", lambda s: s["predictor"]["model"].update(storageURI="s3://x"), "storageURI is unknown"),
    ("V1beta1InferenceService", lambda s: s["predictor"].update(terminationGracePeriodSeconds="80"), "must be of type int"),
])
def test_a_planted_fault_is_found(kserve, kind, plant, words):
    wrong = copy.deepcopy(example(kind))
    plant(wrong["spec"])
    faults = kserve.errors(kind, wrong)
    assert any(words in fault for fault in faults), faults


def test_the_runtime_fits_the_server(routes, server_flags):
    (container,) = example("V1alpha1ClusterServingRuntime")["spec"]["containers"]
    flags = dict(a[2:].split("=", 1) for a in container["args"] if a.startswith("--"))
    assert {f"--{flag}" for flag in flags} <= server_flags
    # KServe's own words: this name, and the models under this path.
    assert container["name"] == "kserve-container" and flags["model-repository"] == "/mnt/models"
    assert container["ports"][0]["containerPort"] == int(flags["http-port"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        assert get["port"] == int(flags["http-port"]) and routes(get["path"])
    annotations = example("V1alpha1ClusterServingRuntime")["spec"]["annotations"]
    assert annotations["prometheus.kserve.io/port"] == flags["metrics-port"]
    grace = example("V1beta1InferenceService")["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace > int(flags["drain-delay"]) + int(flags["exit-timeout-secs"])
    assert example("V1beta1InferenceService")["spec"]["predictor"]["model"]["runtime"] == "trireme"
