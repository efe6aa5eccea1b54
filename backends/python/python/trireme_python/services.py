"""What the server does for a model: its log and its metrics."""
import enum
import math
import struct

from . import frames, inference
from .errors import TritonModelException


class LogLevel(enum.IntEnum):
    ERROR, WARNING, INFO, VERBOSE = 1, 2, 3, 4


class Logger:
    """Writes to the server's log."""

    LogLevel = LogLevel
    ERROR, WARNING, INFO, VERBOSE = LogLevel.ERROR, LogLevel.WARNING, LogLevel.INFO, LogLevel.VERBOSE

    @staticmethod
    def log(message, level=LogLevel.INFO):
        inference.link.send(frames.LOG, bytes([int(level)]) + frames.text(str(message)))

    @staticmethod
    def log_info(message):
        Logger.log(message, LogLevel.INFO)

    @staticmethod
    def log_warn(message):
        Logger.log(message, LogLevel.WARNING)

    @staticmethod
    def log_error(message):
        Logger.log(message, LogLevel.ERROR)

    @staticmethod
    def log_verbose(message):
        Logger.log(message, LogLevel.VERBOSE)


class MetricKind(enum.IntEnum):
    COUNTER, GAUGE, HISTOGRAM = 0, 1, 2


class MetricFamily:
    """Metrics of one name among the server's."""

    COUNTER, GAUGE, HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM
    # Of every name that this process has used.
    _kinds = {}

    def __init__(self, name, description, kind):
        self._name, self._description, self._kind = name, description, MetricKind(kind)
        known = self._kinds.setdefault(name, self._kind)
        if known != self._kind:
            raise TritonModelException(f"metric '{name}' is a {known.name} already, so it cannot be a {self._kind.name}")

    def Metric(self, labels=None, buckets=None):
        """The metric with these labels; a histogram has buckets, by their upper bounds."""
        if self._kind != MetricKind.HISTOGRAM:
            if buckets is not None:
                raise TritonModelException(f"metric '{self._name}' is no histogram and has no buckets")
            return Metric(self._name, self._description, self._kind, dict(labels or {}), [])
        bounds = [float(bound) for bound in ([] if buckets is None else buckets)]
        if not bounds:
            raise TritonModelException(f"histogram '{self._name}' needs buckets: a list of upper bounds, at least one")
        if not all(map(math.isfinite, bounds)) or any(a >= b for a, b in zip(bounds, bounds[1:])):
            raise TritonModelException(f"the buckets of histogram '{self._name}' must be finite and ascend, found {bounds}")
        return Metric(self._name, self._description, self._kind, dict(labels or {}), bounds)


class Metric:
    """A number of the server's. The same name and labels are the same number, whichever instance writes it."""

    _ADD, _SET, _OBSERVE = 0, 1, 2

    def __init__(self, name, description, kind, labels, bounds):
        self._name, self._kind = name, kind
        texts = [name, description]
        for key, value in labels.items():
            texts += [str(key), str(value)]
        payload = bytes([kind]) + frames.NUMBER.pack(len(bounds)) + struct.pack(f"<{len(bounds)}d", *bounds)
        for text in texts:
            data = text.encode()
            payload += frames.NUMBER.pack(len(data)) + data
        well, answer = inference.link.ask(frames.NEW_METRIC, payload)
        if not well:
            raise TritonModelException(answer.decode())
        (self._number,) = frames.NUMBER.unpack(answer)

    def _measure(self, operation, value):
        value = float(value)
        if not math.isfinite(value):
            raise TritonModelException(f"metric '{self._name}': {value} is no finite number")
        inference.link.send(frames.METRIC, frames.MEASURE.pack(self._number, operation, value))

    def _refuse_histogram(self, mend):
        if self._kind == MetricKind.HISTOGRAM:
            raise TritonModelException(f"metric '{self._name}' is a histogram, which has no single value: {mend}")

    def increment(self, value):
        """Adds to it; what only grows takes no negative value."""
        self._refuse_histogram("use observe")
        if value < 0 and self._kind == MetricKind.COUNTER:
            raise TritonModelException(f"counter '{self._name}' cannot be incremented by {value}, which is negative")
        self._measure(self._ADD, value)

    def set(self, value):
        """Sets a gauge."""
        self._refuse_histogram("use observe")
        if self._kind != MetricKind.GAUGE:
            raise TritonModelException(f"metric '{self._name}' is a counter, which cannot be set")
        self._measure(self._SET, value)

    def observe(self, value):
        """Counts a value of a histogram."""
        if self._kind != MetricKind.HISTOGRAM:
            raise TritonModelException(f"metric '{self._name}' is no histogram, so nothing can be observed")
        self._measure(self._OBSERVE, value)

    def value(self):
        """What a counter or a gauge has come to."""
        self._refuse_histogram("look at the server's metrics")
        well, answer = inference.link.ask(frames.METRIC_VALUE, frames.NUMBER.pack(self._number))
        if not well:
            raise TritonModelException(answer.decode())
        return struct.unpack("<d", answer)[0]
