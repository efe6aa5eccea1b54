"""Reads Prometheus' text form."""
import re
import urllib.request
from dataclasses import dataclass, field

SUFFIXES = {"summary": ("_sum", "_count"), "histogram": ("_sum", "_count", "_bucket")}


@dataclass
class Family:
    kind: str
    help: str
    # {(name, ((label, value), …)): value}; the name differs from the family's in `_sum`, `_count` and `_bucket`.
    samples: dict = field(default_factory=dict)


def scrape(port):
    """The families of a server by name."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return parse(answer.read().decode())


def parse(text):
    families, helps = {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, words = line.split(" ", 3)
            helps[name] = words
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families, f"{name} is there twice"
            families[name] = Family(kind, helps.pop(name, ""))
        elif line and not line.startswith("#"):
            name, labels, value = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line).groups()
            key = (name, tuple(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")))
            family = families[family_of(name, families)]
            assert key not in family.samples, f"{line}: twice"
            family.samples[key] = float(value)
    assert not helps, f"no TYPE: {helps}"
    return families


def family_of(name, families):
    for known, family in families.items():
        if name == known or name in [known + suffix for suffix in SUFFIXES.get(family.kind, ())]:
            return known
    raise AssertionError(f"{name} belongs to no family")
