"""Requests, responses, and who sends them."""
import collections
import json
import sys

from . import frames
from .errors import TritonError, TritonModelException
from .tensor import Tensor, read_tensors

SEQUENCE_START, SEQUENCE_END = 1, 2
COMPLETE_FINAL = 1
RELEASE_ALL, RELEASE_RESCHEDULE = 1, 2

# How many responses of a request may be on their way before `send` waits for the server to take some.
WINDOW = 32

# The connection of this process; set before the model's code is loaded.
link = None


class InferenceTrace:
    """The trace that a request belongs to."""

    def __init__(self, context=""):
        self._context = context

    def get_context(self):
        return self._context or None


class PreferredMemory:
    """Where the caller would like the answers to be; they are in the memory of the host."""

    GPU, CPU = "gpu", "cpu"

    def __init__(self, preferred_memory_type=CPU, preferred_device_id=0):
        if preferred_memory_type == self.GPU:
            raise TritonModelException("answers in GPU memory are not supported: use TRITONSERVER_MEMORY_CPU")
        self.preferred_memory_type = preferred_memory_type
        self.preferred_device_id = preferred_device_id


class InferenceResponse:
    """The answer to a request: tensors, or an error."""

    __slots__ = ("_tensors", "_error", "_parameters")

    def __init__(self, output_tensors=(), error=None, parameters=None):
        if error is not None and not isinstance(error, TritonError):
            raise TypeError(f"the error of a response must be a TritonError, found {type(error).__name__}")
        tensors = list(output_tensors)
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"output_tensors must hold Tensors, found {type(tensor).__name__}")
        self._tensors = tensors
        self._error = error
        self._parameters = _parameters(parameters)

    def output_tensors(self):
        return self._tensors

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error

    def parameters(self):
        """The parameters, a JSON object as text."""
        return self._parameters or "{}"


def _parameters(given):
    """A dictionary of scalars as JSON; empty without any."""
    if not given:
        return ""
    if isinstance(given, str):
        given = json.loads(given)
    for key, value in given.items():
        if not isinstance(key, str):
            raise TritonModelException(f"the keys of parameters must be str, found {type(key).__name__}")
        if not isinstance(value, (bool, int, float, str)):
            kind = type(value).__name__
            raise TritonModelException(f"parameter '{key}' must be a bool, an int, a float or a str, found {kind}")
    return json.dumps(given)


class Answering:
    """The duty to answer a request. It goes with the last of those who could fulfil it."""

    __slots__ = ("number", "wanted", "done", "sent", "__weakref__")
    outputs = {}
    decoupled = False

    def __init__(self, number, wanted):
        self.number = number
        self.wanted = wanted
        self.done = False
        self.sent = 0

    def describe(self, response, final, place):
        """The response as a frame has it; what cannot be sent becomes an error."""
        flags = frames.FINAL if final else 0
        lent = place.lent()
        if response is not None and response._error is None:
            try:
                wanted, outputs, described = self.wanted, self.outputs, []
                for tensor in response._tensors:
                    name = tensor._name
                    if wanted is None or name in wanted:
                        described.append(tensor._outgoing(place, name, outputs.get(name)))
                parameters = response._parameters.encode()
                head = frames.ANSWERING.pack(self.number, flags, 0, len(described), 0, len(parameters))
                return b"".join((head, parameters, *described))
            except Exception as error:
                place.take_back(lent)
                response = InferenceResponse(error=TritonError(f"{type(error).__name__}: {error}"))
        if response is None:
            return frames.ANSWERING.pack(self.number, flags, 0, 0, 0, 0)
        text = frames.text(response._error.message())
        head = frames.ANSWERING.pack(
            self.number, frames.FINAL | frames.FAILURE, response._error.code(), 0, len(text), 0
        )
        return head + text

    def finish(self):
        self.done = True
        if self.decoupled:
            link.stop_counting(self.number)

    def send(self, response, final):
        if final:
            self.finish()
        link.send_tensors(frames.RESPONSE, lambda place: self.describe(response, final, place))

    def fail(self, message):
        if not self.done:
            self.send(InferenceResponse(error=TritonError(message)), True)

    def __del__(self):
        if not self.done and link is not None:
            try:
                self.fail("the model has dropped the request without a final response")
            except Exception:
                pass  # the server is gone


class InferenceResponseSender:
    """Sends the responses of one request, from any thread."""

    __slots__ = ("_answering",)

    def __init__(self, answering):
        self._answering = answering

    def is_cancelled(self):
        """Whether nobody waits for the answer any more."""
        return _is_cancelled(self._answering)

    def send(self, response=None, flags=0):
        """Sends a response; with TRITONSERVER_RESPONSE_COMPLETE_FINAL it is the last one, which may be absent. Waits
        while the client is far behind."""
        if flags not in (0, COMPLETE_FINAL):
            raise TritonModelException(f"flags {flags!r} are unknown: 0 or TRITONSERVER_RESPONSE_COMPLETE_FINAL")
        if response is not None and not isinstance(response, InferenceResponse):
            raise TypeError(f"a response must be an InferenceResponse, found {type(response).__name__}")
        final = flags == COMPLETE_FINAL
        if response is None and not final:
            raise TritonModelException("without a response, the flags must be TRITONSERVER_RESPONSE_COMPLETE_FINAL")
        answering = self._answering
        if answering.done:
            raise TritonModelException("the response sender is closed: the final response was sent")
        if not answering.decoupled:
            if response is not None and answering.sent:
                raise TritonModelException("a model that is not decoupled sends one response only")
            if response is None and not answering.sent:
                raise TritonModelException("a model that is not decoupled must send a response before its end")
        elif answering.sent >= WINDOW and not _in_event_loop():
            link.wait_taken(answering.number, answering.sent - WINDOW + 1)
        answering.sent += response is not None
        answering.send(response, final)


def _in_event_loop():
    # Who runs a loop has imported it.
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and bool(asyncio.get_running_loop())
    except RuntimeError:
        return False


def _is_cancelled(answering):
    if answering.done:
        return False
    well, answer = link.ask(frames.CANCELLED, answering.number.to_bytes(8, "little"))
    return bool(well) and answer == b"\x01"


class InferenceRequest:
    """A request to this model, or one of its own to another (BLS)."""

    # Whether `execute` is to get it once more.
    _again = False

    def __init__(
        self,
        request_id="",
        correlation_id=0,
        inputs=None,
        requested_output_names=None,
        model_name=None,
        model_version=-1,
        flags=0,
        timeout=0,
        preferred_memory=None,
        trace=None,
        parameters=None,
    ):
        if inputs is None or requested_output_names is None or model_name is None:
            raise TypeError("an InferenceRequest needs inputs, requested_output_names and model_name")
        if isinstance(correlation_id, bool) or not isinstance(correlation_id, (int, str)):
            raise TritonModelException("correlation_id must be an int or a str")
        self._inputs = list(inputs)
        for tensor in self._inputs:
            if not isinstance(tensor, Tensor):
                raise TritonModelException(f"inputs must hold Tensors, found {type(tensor).__name__}")
        self._wanted = sorted({_str(name) for name in requested_output_names})
        if "" in self._wanted:
            raise TritonModelException(f"an output name of the request to model '{model_name}' is empty")
        self._request_id = request_id
        self._correlation_id = correlation_id
        self._model_name = _str(model_name)
        self._model_version = int(model_version)
        self._flags = flags
        self._timeout = timeout
        self._trace = trace if trace is not None else InferenceTrace()
        self._parameters = _parameters(parameters)
        self._answering = None
        self._released = RELEASE_ALL

    def inputs(self):
        return self._inputs

    def request_id(self):
        return self._request_id

    def correlation_id(self):
        """A number or a text; 0 without one."""
        return self._correlation_id

    def flags(self):
        return self._flags

    def set_flags(self, flags):
        self._flags = flags

    def timeout(self):
        """In microseconds; 0 without one."""
        return self._timeout

    def parameters(self):
        """The parameters, a JSON object as text."""
        return self._parameters or "{}"

    def trace(self):
        return self._trace

    def requested_output_names(self):
        return self._wanted

    def is_cancelled(self):
        """Whether nobody waits for the answer any more."""
        return self._answering is not None and _is_cancelled(self._answering)

    def get_response_sender(self):
        if self._answering is None:
            raise TritonModelException("a request to another model has no response sender")
        self._released = None
        return InferenceResponseSender(self._answering)

    def set_release_flags(self, flags):
        """With TRITONSERVER_REQUEST_RELEASE_RESCHEDULE `execute` gets the request once more, after what waits now."""
        if flags not in (RELEASE_ALL, RELEASE_RESCHEDULE):
            raise TritonModelException(f"release flags {flags!r} are unknown")
        if self._answering is None:
            raise TritonModelException("a request to another model cannot be rescheduled")
        self._again = flags == RELEASE_RESCHEDULE

    def exec(self, decoupled=False):
        """Asks the model and waits: its response, or if `decoupled` an iterator over its responses."""
        from .calls import Call

        call = Call(self, decoupled)
        return call if decoupled else call.result()

    def async_exec(self, decoupled=False):
        """As `exec`, to be awaited."""
        import asyncio

        from .calls import Call

        loop = asyncio.get_running_loop()
        return Call(self, decoupled, loop).future


def _str(name):
    return name.decode() if isinstance(name, bytes) else str(name)


class Batch(collections.namedtuple("Batch", "number requests answerings")):
    """What `execute` is called with. Requests that were rescheduled have no number: the server has seen their batch end."""


def read_batch(body, output_names):
    (meta_length,) = frames.META.unpack_from(body)
    position = frames.META.size
    data = frames.align(position + meta_length)
    number, count = frames.BATCH.unpack_from(body, position)
    position += frames.BATCH.size
    requests, answerings, views = [], [], {}
    for _ in range(count):
        head = frames.REQUEST.unpack_from(body, position)
        request, correlation, timeout, flags, parameters_length, id_length, text_length, outputs, inputs = head
        position += frames.REQUEST.size
        one = InferenceRequest.__new__(InferenceRequest)
        one._request_id = body[position : position + id_length].decode() if id_length else ""
        position += id_length
        one._correlation_id = body[position : position + text_length].decode() if text_length else correlation
        position += text_length
        one._parameters = body[position : position + parameters_length].decode() if parameters_length else ""
        position += parameters_length
        if outputs == frames.ALL_OUTPUTS:
            one._wanted, wanted = output_names, None
        else:
            indices = memoryview(body)[position : position + 2 * outputs]
            position += 2 * outputs
            indices = [int.from_bytes(indices[at : at + 2], "little") for at in range(0, 2 * outputs, 2)]
            one._wanted = wanted = [output_names[index] for index in indices]
        one._inputs, position = read_tensors(link, body, position, inputs, data, views)
        one._timeout, one._flags, one._trace = timeout, flags, _NO_TRACE
        one._model_name, one._model_version, one._released = MODEL[0], MODEL[1], RELEASE_ALL
        answering = one._answering = Answering(request, wanted)
        if Answering.decoupled:
            link.count_taken(request)
        requests.append(one)
        answerings.append(answering)
    return Batch(number, requests, answerings)


_NO_TRACE = InferenceTrace()
# Name and version of this model.
MODEL = ["", 1]
