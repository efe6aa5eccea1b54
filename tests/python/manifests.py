"""Command lines of manifests that start a tritonserver in Kubernetes, collected on 2026-11-26 from the main branches.

A repository is written as `{models}`: where it lies is up to whoever deploys.
"""

# Where it comes from (a folder under deploy/, or KServe's runtime): what stands behind `tritonserver`.
MANIFESTS = {
    "aws": ["--model-store={models}", "--model-control-mode=poll", "--repository-poll-secs=5"],
    "oci": ["--model-store={models}", "--model-control-mode=poll", "--repository-poll-secs=5"],
    "gcp": ["--model-store={models}"],
    "k8s-onprem": ["--model-repository={models}"],
    "fleetcommand": ["--model-repository={models}"],
    "fleetcommand, explicit": ["--model-repository={models}", "--model-control-mode=explicit"],
    "fleetcommand, poll": ["--model-repository={models}", "--model-control-mode=poll"],
    "fleetcommand, none": ["--model-repository={models}", "--model-control-mode=none"],
    # Helm prints a boolean in lower case; the marketplace's form hands its default on as it is written.
    "gke-marketplace": ["--model-store={models}", "--strict-model-config=false", "--log-verbose=0", "--allow-gpu-metrics=true"],
    "gke-marketplace, form": ["--model-store={models}", "--strict-model-config=False", "--log-verbose=0", "--allow-gpu-metrics=True"],
    "alibaba-cloud": ["--model-repository={models}", "--allow-grpc=true", "--allow-http=true"],
    "kserve": ["--model-store={models}", "--grpc-port=9000", "--http-port=8080", "--allow-grpc=true", "--allow-http=true"],
}
