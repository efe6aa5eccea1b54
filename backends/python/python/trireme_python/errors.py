"""What goes wrong, for the client and for the model."""


class TritonModelException(Exception):
    """Raised by a model, or by us for what a model does wrong."""


class TritonError:
    """An error for a client: a message and a code."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message, code=1):
        if not isinstance(message, str):
            raise TypeError(f"the message of a TritonError must be a str, found {type(message).__name__}")
        if code not in range(8):
            raise ValueError(f"{code!r} is not an error code: use one of TritonError's, such as TritonError.INTERNAL")
        self._message = message
        self._code = code

    def code(self):
        return self._code

    def message(self):
        return self._message

    def __str__(self):
        return self._message
