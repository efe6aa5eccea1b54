"""Kinds of operators, held to the types that the operators publish. KEDA's and the Prometheus operator's come from npm
(types/), KServe's from its Python package, whose models are made of its definitions; they are read, not imported."""
import ast
import functools
import json
import os
import pathlib
import re
import subprocess

from tools import ROOT

# `cargo xtask test-deploy` installs them.
TYPES = pathlib.Path(os.environ.get("TRIREME_DEPLOY_TYPES", ROOT / "target" / "deploy-types"))
PACKAGES = {"keda.sh": "keda", "monitoring.coreos.com": "prometheus-operator"}
# Maps whose keys are the author's own.
FREE = {"labels", "annotations", "matchLabels", "metadata"}


def operator_errors(objects):
    """What is wrong with objects of KEDA and of the Prometheus operator, one line a fault."""
    done = subprocess.run(["node", TYPES / "validate.mjs"], input=json.dumps(objects), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines() + [f"{one['kind']}: {fault}" for one in objects for fault in unknown_fields(one)]


def unknown_fields(one):
    """Fields that no type of the operator has. A cluster drops them without a word."""
    group, version = one["apiVersion"].split("/")
    packages = TYPES / "node_modules/@kubernetes-models"
    folders = [packages / PACKAGES[group] / group / version, packages / "apimachinery/apis/meta/v1"]
    types = "".join(file.read_text() for folder in folders for file in folder.glob("*.d.ts"))
    known = set(re.findall(r"\"?(\w+)\"?\??:", types))
    assert len(known) > 20

    def walk(value, place):
        if isinstance(value, list):
            return [fault for i, inner in enumerate(value) for fault in walk(inner, f"{place}[{i}]")]
        if not isinstance(value, dict):
            return []
        found = [f"{place}.{key} is unknown" for key in value if key not in known]
        return found + [fault for key, inner in value.items() if key not in FREE for fault in walk(inner, f"{place}.{key}")]

    return walk(one["spec"], "spec")


class KServe:
    """The kinds of KServe: unknown fields, missing ones and wrong types are found at any depth. Types of Kubernetes itself
    inside of them are held to its schema, as parts of a pod."""

    def __init__(self, pod_errors):
        self.models, self.pod_errors = TYPES / "kserve" / "kserve" / "models", pod_errors

    @functools.cache
    def type(self, name):
        """(types, JSON names, required ones) of a class, or None if it is Kubernetes' own."""
        file = self.models / (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() + ".py")
        if not file.exists():
            return None
        (made,) = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
        tables = {n.targets[0].id: ast.literal_eval(n.value) for n in made.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Dict)}
        required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", file.read_text()))
        return tables["openapi_types"], tables["attribute_map"], required

    def errors(self, kind, value, place=""):
        types, names, required = self.type(kind)
        place = place or kind
        if not isinstance(value, dict):
            return [f"{place} must be an object"]
        known = {json_name: field for field, json_name in names.items()}
        found = [f"{place}.{names[field]} is missing" for field in required if names[field] not in value]
        for key, inner in value.items():
            if key not in known:
                found.append(f"{place}.{key} is unknown")
            else:
                found += self.of_type(types[known[key]], inner, f"{place}.{key}")
        return found

    def of_type(self, name, value, place):
        if inner := re.fullmatch(r"list\[(.*)\]", name):
            if not isinstance(value, list):
                return [f"{place} must be a list"]
            return [e for i, one in enumerate(value) for e in self.of_type(inner[1], one, f"{place}[{i}]")]
        if inner := re.fullmatch(r"dict\(str, (.*)\)", name):
            if not isinstance(value, dict):
                return [f"{place} must be a map"]
            return [e for key, one in value.items() for e in self.of_type(inner[1], one, f"{place}.{key}")]
        plain = {"str": str, "int": int, "bool": bool, "float": (int, float)}
        if name in plain:
            right = isinstance(value, plain[name]) and (name == "bool" or not isinstance(value, bool))
            return [] if right else [f"{place} must be of type {name}"]
        if self.type(name):
            return self.errors(name, value, place)
        if name == "V1Container":
            return [f"{place}: {line}" for line in self.pod_errors({"containers": [{"name": "c", **value}]}).splitlines()]
        if name in ("V1ObjectMeta", "object"):
            return []
        raise AssertionError(f"{place}: nothing checks {name}")
