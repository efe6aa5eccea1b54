"""Runs what a suite's script asks Python for, and writes down each test with its outcome.

The test files run as they are; what is replaced is how `unittest` notes a result. QA_LIST writes the tests down without
running them; QA_ONLY (a regular expression over the flags of the server and the name) runs
some of them.
"""

import json
import os
import re
import runpy
import signal
import sys
import time
import unittest

HIDDEN = re.compile(
    r"QA_.*|PATH|PWD|OLDPWD|SHLVL|_|LD_LIBRARY_PATH|BASH_ENV|SERVER_LOG|.*_LOG_DIR|PYTEST_CURRENT_TEST|CUDA_VISIBLE_DEVICES|PYTHON.*|OLDPWD"
)
LISTING = bool(os.environ.get("QA_LIST"))
ONLY = re.compile(os.environ.get("QA_ONLY", ""))
LIMIT = int(os.environ.get("QA_CASE_SECONDS", "3000"))


def environment():
    with open(os.environ["QA_BASE"], encoding="utf-8") as base:
        base = json.load(base)
    changed = {k: v for k, v in os.environ.items() if base.get(k) != v and not HIDDEN.fullmatch(k)}
    if "SERVER_PID" in changed:
        # A number of this run; where cases are only listed it is 0.
        changed["SERVER_PID"] = "0"
    return " ".join(f"{k}={' '.join(v.split())}" for k, v in sorted(changed.items()))


def server():
    try:
        with open(os.path.join(os.environ["QA_STATE"], "server"), encoding="utf-8") as text:
            text = " ".join(text.read().split())
    except FileNotFoundError:
        return ""
    # Places of this run are no part of the combination.
    return re.sub(r"[^\s=,]*\bwork/qa/L0_\w+/?", "", re.sub(r"--backend-directory=\S+", "", text)).strip()


def note(script, test, outcome, reason="", seconds=0.0):
    line = {
        "script": os.path.basename(script), "test": test, "server": " ".join(server().split()),
        "environment": environment(), "outcome": outcome, "reason": reason, "seconds": round(seconds, 1),
    }
    with open(os.environ["QA_RESULTS"], "a", encoding="utf-8") as results:
        results.write(json.dumps(line) + "\n")


def last_line(error):
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    # The message is what follows the last line of the stack.
    start = max((i for i, line in enumerate(lines) if line.startswith("  ")), default=-1) + 1
    return " ".join(lines[start:])[:600] if lines else ""


def name_of(test):
    return ".".join(test.id().split(".")[-2:])


def too_long(*_):
    raise TimeoutError(f"the case took more than {LIMIT} seconds")


def patch_unittest(script):
    class Recorder(unittest.TextTestResult):
        def startTest(self, test):
            super().startTest(test)
            self.since, self.noted = time.time(), False
            signal.alarm(LIMIT)

        def stopTest(self, test):
            signal.alarm(0)
            if not self.noted:
                self.finish(test, "pass", "")
            super().stopTest(test)

        def finish(self, test, outcome, reason):
            self.noted = True
            note(script, name_of(test), outcome, reason, time.time() - self.since)

        def bad(self, test, error):
            self.finish(test, "fail", last_line(self._exc_info_to_string(error, test)))

        def addError(self, test, error):
            super().addError(test, error)
            if isinstance(test, unittest.TestCase):
                self.bad(test, error)
            else:
                note(script, str(test), "fail", last_line(self._exc_info_to_string(error, test)))

        def addFailure(self, test, error):
            super().addFailure(test, error)
            self.bad(test, error)

        def addSubTest(self, test, subtest, error):
            super().addSubTest(test, subtest, error)
            if error is not None and not self.noted:
                self.bad(test, error)

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self.finish(test, "skip", reason)

    def run(self, suite):
        tests = list(flatten(suite))
        if LISTING:
            for test in tests:
                note(script, name_of(test), "listed")
            tests = []
        chosen = unittest.TestSuite(test for test in tests if ONLY.search(f"{server()} {name_of(test)}"))
        return real_run(self, chosen)

    if not hasattr(unittest.TestCase, "_feedErrorsToResult"):
        # A private function of Python before 3.11 that one suite asks in tearDown whether its test has failed.
        unittest.TestCase._feedErrorsToResult = lambda self, result, errors: result.errors.extend(errors)
        unittest.case._Outcome.errors = property(
            lambda self: [(test, text) for test, text in self.result.errors + self.result.failures]
        )

    real_run = unittest.TextTestRunner.run
    unittest.TextTestRunner.run = run
    unittest.TextTestRunner.resultclass = Recorder
    signal.signal(signal.SIGALRM, too_long)


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def pytest(arguments):
    import pytest

    class Plugin:
        def pytest_collection_modifyitems(self, items):
            if LISTING:
                for item in items:
                    note(str(item.path), name(item.nodeid), "listed")
                items.clear()

        def pytest_runtest_logreport(self, report):
            if report.when == "call" or report.outcome != "passed" and report.when == "setup":
                outcome = {"passed": "pass", "failed": "fail", "skipped": "skip"}[report.outcome]
                note(report.fspath, name(report.nodeid), outcome, last_line(report.longreprtext), report.duration)

        def pytest_collectreport(self, report):
            if report.failed:
                note(report.nodeid, "collection", "fail", last_line(report.longreprtext))

    def name(node):
        return ".".join(node.split("::")[1:])

    sys.exit(pytest.main(arguments, plugins=[Plugin()]))


def main(arguments):
    if arguments[:2] == ["-m", "pytest"]:
        pytest(arguments[2:])
    if not arguments or arguments[0].startswith("-"):
        # Nothing that the suites do with Python on the side is a case.
        os.execv(sys.executable, [sys.executable, *arguments])
    script = arguments[0]
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    try:
        with open(script, encoding="utf-8") as text:
            is_test = "unittest" in text.read()
    except OSError as error:
        note(script, " ".join(arguments[1:]), "listed" if LISTING else "fail", str(error))
        raise
    if is_test:
        patch_unittest(script)
        try:
            runpy.run_path(script, run_name="__main__")
        except ImportError as error:
            note(script, "import", "fail", str(error))
            raise
        return
    test = " ".join(arguments[1:])
    if LISTING:
        note(script, test, "listed")
        return
    since = time.time()
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        bad = end.code not in (None, 0)
        note(script, test, "fail" if bad else "pass", f"exit {end.code}" if bad else "", time.time() - since)
        raise
    except BaseException as error:
        note(script, test, "fail", f"{type(error).__name__}: {error}", time.time() - since)
        raise
    note(script, test, "pass", "", time.time() - since)


main(sys.argv[1:])
