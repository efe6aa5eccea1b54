"""The life of this process: load the model, serve batches, finalize."""
import collections.abc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
import types

from . import calls, frames, inference
from .config import ModelConfig
from .errors import TritonError, TritonModelException
from .inference import Answering, Batch, InferenceResponse, read_batch
from .link import Closed, Link
from .types import NUMBERS

# In seconds. The next batch mostly comes sooner, and in memory that is open already; to open it costs more than to wait.
_IDLE = 0.1

_setup = {}


def get_model_dir():
    """The directory of the model's version, where its script is."""
    return _setup["version_dir"]


def _explained(error):
    """The traceback, without our own frames."""
    ours = (os.path.dirname(os.path.abspath(__file__)), "<frozen importlib")
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code.co_filename.startswith(ours):
        entry = entry.tb_next
    lines = traceback.format_exception(type(error), error, entry)
    head = "".join(traceback.format_exception_only(type(error), error)).strip()
    return head, "".join(lines).strip()


def _load(setup):
    """The class TritonPythonModel of the model's script. The script may import what lies beside it."""
    script = setup["script"]
    package = types.ModuleType("trireme_model")
    package.__path__ = [setup["version_dir"]]
    sys.modules[package.__name__] = package
    for folder in (setup["version_dir"], setup["model_dir"]):
        if folder not in sys.path:
            sys.path.append(folder)
    name = f"{package.__name__}.{os.path.splitext(os.path.basename(script))[0]}"
    spec = importlib.util.spec_from_file_location(name, script)
    if spec is None:
        raise TritonModelException(f"'{script}' is no Python script: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    model = getattr(module, "TritonPythonModel", None)
    if model is None:
        raise TritonModelException(f"'{script}' does not define the class TritonPythonModel")
    return model


def _complete(model, setup):
    config = ModelConfig(setup["config"])
    complete = getattr(model, "auto_complete_config", None)
    if complete is not None:
        config = complete(config)
        if not isinstance(config, ModelConfig):
            found = type(config).__name__
            raise TritonModelException(f"auto_complete_config must return the pb_utils.ModelConfig, found {found}")
    return json.dumps(config.as_dict())


class Worker:
    def __init__(self, link, setup):
        self._link = link
        self._setup = setup
        config = json.loads(setup["config"])
        self._decoupled = Answering.decoupled = bool((config.get("model_transaction_policy") or {}).get("decoupled"))
        link.keeps_gpu = setup["keeps_gpu"]
        self._outputs = [output["name"] for output in config["output"]]
        Answering.outputs = {output["name"]: NUMBERS.get(output["data_type"]) for output in config["output"]}
        inference.MODEL[:] = [setup["name"], int(setup["version"])]
        self._loop = None

    def initialize(self):
        self._model = _load(self._setup)()
        if not callable(getattr(self._model, "execute", None)):
            raise TritonModelException("TritonPythonModel has no method execute")
        initialize = getattr(self._model, "initialize", None)
        if initialize is not None:
            setup = self._setup
            initialize(
                {
                    "model_config": setup["config"],
                    "model_instance_kind": setup["kind"],
                    "model_instance_name": setup["instance"],
                    "model_instance_device_id": str(setup["device"]),
                    "model_repository": setup["model_dir"],
                    "model_version": setup["version"],
                    "model_name": setup["name"],
                }
            )

    def serve(self):
        link = self._link
        while True:
            while link.has_gpu() and not link.wait(lambda: link.work, _IDLE):
                link.give_back()
            link.wait(lambda: link.work)
            kind, body = link.work.popleft()
            if kind == frames.FINISH:
                return
            if kind == frames.AGAIN:
                self._execute(body)
                link.stop_reading()
            else:
                self._execute(read_batch(body, self._outputs))
            del body

    def finalize(self):
        finalize = getattr(self._model, "finalize", None)
        if finalize is not None:
            finalize()

    def _execute(self, batch):
        calls.executing.now = True
        # Whether a coroutine goes on after this.
        self._later = False
        try:
            result = self._model.execute(batch.requests)
            if isinstance(result, collections.abc.Coroutine):
                result = self._run(result, batch)
            responses = self._checked(result, batch)
        except Exception as error:
            responses = self._failed(batch, error)
        finally:
            calls.executing.now = False
        if batch.number is not None:
            self._link.send_tensors(frames.DONE, lambda place: self._describe(batch, responses, place))
        else:
            for answering, response in responses:
                answering.send(response, True)
        if not self._later:
            self._reschedule(batch)

    def _describe(self, batch, responses, place):
        parts = [frames.BATCH.pack(batch.number, len(responses))]
        for answering, response in responses:
            answering.finish()
            parts.append(answering.describe(response, True, place))
        return b"".join(parts)

    def _reschedule(self, batch):
        """Puts the requests that are to come once more behind what waits. Somebody has to read meanwhile: as long as there is
        something to do, nobody waits."""
        again = [pair for pair in zip(batch.requests, batch.answerings) if pair[0]._again and not pair[1].done]
        if again:
            for request, _ in again:
                request._again = False
            self._link.keep_reading()
            self._link.later(frames.AGAIN, Batch(None, *map(list, zip(*again))))

    def _checked(self, result, batch):
        """Who is answered with what. A request whose sender was asked for may be answered later."""
        if isinstance(result, (list, tuple)) and len(result) == len(batch.requests) and not self._decoupled:
            for request, response in zip(batch.requests, result):
                if request._again and response is not None:
                    raise TritonModelException(
                        "Expected a None object in the execute function return list for rescheduled request, found"
                        f" {type(response).__name__}"
                    )
        if result is None:
            open_ones = [
                (request, answering)
                for request, answering in zip(batch.requests, batch.answerings)
                if not answering.done and not request._again and request._released is not None
            ]
            if self._decoupled or not open_ones:
                return []
            raise TritonModelException(
                "execute returned None: it must return a list with a response for each request, or answer each by its"
                " response sender"
            )
        if self._decoupled:
            raise TritonModelException("the model is decoupled, so execute must return None and use response senders")
        if not isinstance(result, (list, tuple)):
            raise TritonModelException(f"execute must return a list of InferenceResponse, found {type(result).__name__}")
        if len(result) != len(batch.requests):
            raise TritonModelException(
                f"execute returned {len(result)} responses for {len(batch.requests)} requests: one for each is expected"
            )
        responses = []
        for request, answering, response in zip(batch.requests, batch.answerings, result):
            if isinstance(response, InferenceResponse):
                if not answering.done:
                    responses.append((answering, response))
            elif response is not None:
                kind = type(response).__name__
                raise TritonModelException(f"the list that execute returned must hold InferenceResponse, found {kind}")
            elif not answering.done and not request._again and request._released is not None:
                text = "execute returned None in the place of this request's response"
                responses.append((answering, InferenceResponse(error=TritonError(text))))
        return responses

    def _failed(self, batch, error):
        head, trace = _explained(error)
        text = f"Failed to process the request(s) for model '{self._setup['name']}', message: {head}\n\n{trace}"
        answer = InferenceResponse(error=TritonError(text))
        for request in batch.requests:
            request._again = False
        return [(answering, answer) for answering in batch.answerings if not answering.done]

    def _run(self, coroutine, batch):
        """A coroutine of a decoupled model goes on beside the next batches; of any other it ends here."""
        # Costs a quarter of the start of a process, and most models have none.
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            if self._decoupled:
                run = self._loop.run_forever
                threading.Thread(target=run, daemon=True, name="trireme-loop").start()
        if not self._decoupled:
            return self._loop.run_until_complete(coroutine)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._later = True
        future.add_done_callback(lambda future: self._ended(future, batch))
        return None

    def _ended(self, future, batch):
        error = future.exception()
        try:
            if error is None:
                self._checked(future.result(), batch)
                self._reschedule(batch)
        except Exception as wrong:
            error = wrong
        if error is not None:
            for answering, response in self._failed(batch, error):
                answering.send(response, True)


def _watch(link):
    """Ends the process when the server is gone, whatever the model is doing."""
    poll = select.poll()
    poll.register(link.fileno(), 0)
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
        pass
    os._exit(1)


def main():
    # The socket came as standard input, which nobody else is to read from.
    connection = socket.socket(fileno=os.dup(0))
    os.set_inheritable(connection.fileno(), False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # Who interrupts the server on a terminal means the server; that ends its models in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = inference.link = Link(connection)
    try:
        setup = json.loads(link.setup())
        _setup.update(setup)
        threading.Thread(target=_watch, args=(link,), daemon=True, name="trireme-watch").start()
        _live(link, setup)
    except Closed:
        os._exit(1)


def _live(link, setup):
    try:
        if setup["complete"]:
            link.send(frames.CONFIG, _complete(_load(setup), setup).encode())
            return
        worker = Worker(link, setup)
        worker.initialize()
    except Exception as error:
        _, trace = _explained(error)
        link.send(frames.FAILED, frames.text(trace))
        return
    link.send(frames.READY)
    calls.serving = True
    worker.serve()
    calls.serving = False
    try:
        worker.finalize()
    except Exception as error:
        _, trace = _explained(error)
        link.send(frames.LOG, bytes([1]) + frames.text(f"finalize failed: {trace}"))
    link.send(frames.BYE)
