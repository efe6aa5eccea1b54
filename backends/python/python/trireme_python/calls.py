"""Requests to other models (BLS)."""
import collections
import threading

from . import frames, inference
from .errors import TritonError, TritonModelException
from .inference import InferenceResponse
from .tensor import read_tensors

# Whether the thread runs `execute`, so that the instance does nothing else while it waits.
executing = threading.local()
# Calls are made while the model serves only.
serving = False


class Call:
    """One call and its responses as they come: an iterator."""

    def __init__(self, request, decoupled, loop=None):
        if not serving:
            raise TritonModelException("other models can be asked in `execute` only, not in initialize or finalize")
        self._link = inference.link
        self._name = request._model_name
        self._responses = collections.deque()
        self._ended = False
        self._decoupled = decoupled
        self._loop = loop
        self.future = loop.create_future() if loop else None
        self._number = self._link.number()
        self._link.listen(self._number, self._receive)
        if loop:
            # The loop must go on, so somebody else has to read.
            self._link.keep_reading()
        waits = getattr(executing, "now", False)
        try:
            self._link.send_tensors(frames.CALL, lambda place: self._describe(request, waits, place))
        except BaseException:
            self._close()
            raise
        if loop and decoupled:
            self.future.set_result(self)

    def _describe(self, request, waits, place):
        flags = frames.WAITS if waits else 0
        correlation, text = request._correlation_id, b""
        if isinstance(correlation, str):
            correlation, text, flags = 0, correlation.encode(), flags | frames.TEXT_CORRELATION
        model, name = self._name.encode(), request._request_id.encode()
        parameters = request._parameters.encode()
        outputs = [output.encode() for output in request._wanted]
        inputs = [tensor._outgoing(place, tensor._name) for tensor in request._inputs]
        head = frames.CALLING.pack(
            self._number, flags, len(inputs), request._model_version, correlation, request._timeout, request._flags,
            len(model), len(name), len(text), len(parameters), len(outputs),
        )
        named = [part for output in outputs for part in (frames.NUMBER.pack(len(output)), output)]
        return b"".join((head, model, name, text, parameters, *named, *inputs))

    # Called with the link's lock held, on whichever thread reads.
    def _receive(self, body):
        self._responses.append(body)
        _, flags, _, _, _, _ = frames.ANSWERING.unpack_from(body, frames.META.size)
        if not flags & frames.FINAL:
            return
        self._ended = True
        self._link._answers.pop(self._number, None)
        if self._loop:
            try:
                self._loop.call_soon_threadsafe(self._resolve)
            except RuntimeError:
                pass  # the loop has ended, so nobody waits

    def _resolve(self):
        self._link.stop_reading()
        if not self._decoupled and not self.future.done():
            try:
                self.future.set_result(self.result())
            except Exception as error:
                self.future.set_exception(error)

    def _close(self):
        self._link.stop_listening(self._number)
        if self._loop:
            self._link.stop_reading()

    def __iter__(self):
        return self

    def __next__(self):
        if not self._responses and not self._ended:
            self._link.wait(lambda: self._responses or self._ended)
        if not self._responses:
            raise StopIteration
        return _response(self._link, self._responses.popleft())

    def result(self):
        """The only response."""
        responses = [response for response in self if response.has_error() or response._tensors or response._parameters]
        if len(responses) == 1:
            return responses[0]
        return InferenceResponse(
            error=TritonError(
                f"model '{self._name}' has given {len(responses)} responses, and one is expected: pass decoupled=True to"
                " exec or async_exec"
            )
        )


def _response(link, body):
    (meta_length,) = frames.META.unpack_from(body)
    position = frames.META.size
    data = frames.align(position + meta_length)
    _, flags, code, count, text_length, parameters_length = frames.ANSWERING.unpack_from(body, position)
    position += frames.ANSWERING.size
    if flags & frames.FAILURE:
        text = body[position : position + text_length].decode("utf-8", "replace")
        return InferenceResponse(error=TritonError(text, code))
    response = InferenceResponse()
    response._parameters = body[position : position + parameters_length].decode()
    response._tensors, _ = read_tensors(link, body, position + parameters_length, count, data, {})
    return response
