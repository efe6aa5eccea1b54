"""The same traffic to a real tritonserver 2.51 and to ours: `/metrics` has the same families, labels and values.

Every difference is a line of docs/metrics.md, with its reason; a line that nothing differs by any more is an error, too.
"""
import concurrent.futures
import dataclasses
import math
import re

import peer
import pytest
from exposition import scrape
from traffic import Traffic, write_models
from trireme_server import ROOT

# Durations differ by what the machine does beside; their sums here are seconds where a model holds its requests up.
LOOSE = {"relative": 0.3, "us": 300_000}
# What the machine has at the moment, not what a request has caused.
OF_THE_MACHINE = {"nv_cpu_utilization": 1.0, "nv_cpu_memory_used_bytes": 2e9}


@dataclasses.dataclass(frozen=True)
class Exception_:
    run: str
    family: str
    # label="value" pairs that a sample must have; none means the family itself or each of its samples
    labels: frozenset
    what: str

    def covers(self, run, difference):
        family, labels, what = difference
        return self.run in ("*", run) and self.family == family and self.labels <= labels and self.what == what


def listed():
    """The table of docs/metrics.md."""
    rows = []
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and not cells[0].startswith(("run", "-")):
            run, family, labels, what, why = cells
            assert why, line
            pairs = frozenset(re.findall(r'(\w+)="([^"]*)"', labels))
            rows += [Exception_(run, name, pairs, what) for name in re.findall(r"`(\w+)`", family)]
    return rows


def differences(ours, theirs):
    """(family, labels, what) of everything that is not the same."""
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            yield name, frozenset(), "not here" if name in theirs else "only here"
            continue
        one, other = ours[name], theirs[name]
        if (one.kind, one.help) != (other.kind, other.help):
            yield name, frozenset(), "kind or help"
        mine, yours = (by_labels(family) for family in (one, other))
        for key in sorted(mine.keys() | yours.keys(), key=str):
            labels = frozenset(key[1])
            if key not in mine or key not in yours:
                yield name, labels, "not here" if key in yours else "only here"
            elif not alike(name, key, mine[key], yours[key]):
                yield name, labels, "value"


def by_labels(family):
    return {(name, tuple(sorted(labels))): value for (name, labels), value in family.samples.items()}


def alike(family, key, mine, yours):
    if any(name == "quantile" for name, _ in key[1]):
        # A quantile over few requests is a request or another: only whether there is one at all.
        return math.isnan(mine) == math.isnan(yours)
    if family in OF_THE_MACHINE:
        return abs(mine - yours) <= OF_THE_MACHINE[family]
    if key[0].endswith("_count") or not re.search(r"_us$|_us_sum$|duration|summary", key[0]):
        return mine == yours
    return abs(mine - yours) <= max(LOOSE["relative"] * yours, LOOSE["us"])


RUNS = {
    "default": [],
    "summaries": ["--metrics-config=summary_latencies=true", "--metrics-config=histogram_latencies=true",
                  "--metrics-config=summary_quantiles=0.5:0.05,0.95:0.001"],
    "no counters": ["--metrics-config=counter_latencies=false", "--allow-cpu-metrics=false"],
}


@pytest.fixture(scope="module")
def differing(tmp_path_factory):
    """What differs, by run."""
    peer.install()
    found = {}
    for run, flags in RUNS.items():
        flags = ["--cache-config=local,size=4194304", "--metrics-interval-ms=200", *flags]

        def one(server, flags=flags):
            repository = tmp_path_factory.mktemp(server)
            write_models(repository, server)
            with getattr(peer, server)(repository, *flags) as running:
                Traffic(running).run()
                return scrape(running.metrics)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            ours, theirs = pool.map(one, ["ours", "theirs"])
        found[run] = list(differences(ours, theirs))
    return found


@pytest.mark.skipif(not peer.available(), reason="the peer is a program for x86-64")
@pytest.mark.parametrize("run", RUNS)
def test_only_what_is_listed_differs(differing, run):
    rows = listed()
    unlisted = [one for one in differing[run] if not any(row.covers(run, one) for row in rows)]
    assert not unlisted, "\n".join(f"{family} {sorted(labels)}: {what}" for family, labels, what in unlisted)


@pytest.mark.skipif(not peer.available(), reason="the peer is a program for x86-64")
def test_everything_that_is_listed_differs(differing):
    stale = [row for row in listed() if not any(row.covers(run, one) for run, found in differing.items() for one in found)]
    assert not stale, "\n".join(map(str, stale))
