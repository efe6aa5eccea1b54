"""What a `model.py` imports: the names that models written for Triton's Python backend use."""
from trireme_python.config import (
    ModelConfig,
    get_input_config_by_name,
    get_output_config_by_name,
    using_decoupled_model_transaction_policy,
)
from trireme_python.errors import TritonError, TritonModelException
from trireme_python.inference import (
    COMPLETE_FINAL as TRITONSERVER_RESPONSE_COMPLETE_FINAL,
    RELEASE_ALL as TRITONSERVER_REQUEST_RELEASE_ALL,
    RELEASE_RESCHEDULE as TRITONSERVER_REQUEST_RELEASE_RESCHEDULE,
    SEQUENCE_END as TRITONSERVER_REQUEST_FLAG_SEQUENCE_END,
    SEQUENCE_START as TRITONSERVER_REQUEST_FLAG_SEQUENCE_START,
    InferenceRequest,
    InferenceResponse,
    InferenceResponseSender,
    InferenceTrace,
    PreferredMemory,
)
from trireme_python.models import is_model_ready, load_model, unload_model
from trireme_python.services import Logger, Metric, MetricFamily
from trireme_python.tensor import Tensor
from trireme_python.types import (
    deserialize_bytes_tensor,
    numpy_to_triton_type,
    serialize_byte_tensor,
    triton_string_to_numpy,
    triton_to_numpy_type,
)
from trireme_python.worker import get_model_dir

TRITONSERVER_MEMORY_CPU, TRITONSERVER_MEMORY_GPU = PreferredMemory.CPU, PreferredMemory.GPU


def get_input_tensor_by_name(inference_request, name):
    """The input of this name, or None."""
    for tensor in inference_request.inputs():
        if tensor.name() == name:
            return tensor
    return None


def get_output_tensor_by_name(inference_response, name):
    """The output of this name, or None."""
    for tensor in inference_response.output_tensors():
        if tensor.name() == name:
            return tensor
    return None
