"""The frames between the server and this process. `src/wire.rs` is the other half.

A frame is a head (length of the body, kind) and a body. The body of a frame with tensors is the length of its description,
the description, and from the next multiple of 16 on the data of small tensors. Larger ones are in shared memory.
"""
import struct

HEAD = struct.Struct("<IB3x")
META = struct.Struct("<I4x")

# from the server
SETUP, EXECUTE, ANSWER, REPLY, ACCEPTED, RELEASED, FINISH, FORGET = range(1, 9)
# to oneself: requests that `execute` is to get once more
AGAIN = 0
# to the server
READY, FAILED, CONFIG, DONE, RESPONSE, CALL, ASK, LOG, RETURN, METRIC, BYE, LOAD = range(1, 13)

# what an ASK asks
CANCELLED, NEW_METRIC, METRIC_VALUE, MODEL_READY, UNLOAD = range(1, 6)

# data type, rank, length of the name, slab (0: in the frame), offset, length
TENSOR = struct.Struct("<BBHIQQ")
# request, flags, error code, tensors, length of the error text, length of the parameters
ANSWERING = struct.Struct("<QBBHII")
FINAL, FAILURE = 1, 2
# batch, requests
BATCH = struct.Struct("<QI")
# request, correlation id, timeout, flags, lengths of the parameters, of the id and of the correlation text, outputs that
# are wanted, inputs
REQUEST = struct.Struct("<QQQIIIHHH")
ALL_OUTPUTS = 0xFFFF
# call, flags, inputs, version, correlation id, timeout, sequence flags, lengths of the model's name, the id, the
# correlation text and the parameters, outputs
CALLING = struct.Struct("<QBxHqQQIIIIII")
WAITS, TEXT_CORRELATION = 1, 2
# request, responses that the server has taken
TAKEN = struct.Struct("<QQ")
# question, what
QUESTION = struct.Struct("<IB")
# question, whether it is answered well
REPLIED = struct.Struct("<IB")
# metric, operation, value
MEASURE = struct.Struct("<IBd")
NUMBER = struct.Struct("<I")
# question, files, lengths of the model's name and of the configuration
LOADING = struct.Struct("<IIII")
# version; the name follows
OF_VERSION = struct.Struct("<q")

# An error's text is for people; what is longer is cut.
MAX_TEXT = 64 * 1024
# In bytes: tensors up to the first go with the frame, if they are not more than the second together.
SMALL_TENSOR, SMALL_TENSORS = 16 * 1024, 64 * 1024


def align(offset, to=16):
    return (offset + to - 1) & -to


def text(message):
    return message.encode("utf-8", "replace")[:MAX_TEXT]
