"""A model's configuration, as `auto_complete_config` sees and completes it, and look-ups in one."""
import json

_UNSET = (None, "", "TYPE_INVALID")


class ModelConfig:
    """What the author wrote stands; what is left open can be set."""

    def __init__(self, model_config):
        self._model_config = json.loads(model_config)

    def as_dict(self):
        """The whole configuration."""
        return self._model_config

    def _refuse(self, what):
        return ValueError(f"model '{self._model_config['name']}': auto_complete_config {what}")

    def set_max_batch_size(self, max_batch_size):
        """Sets the largest batch, unless the configuration has a larger one."""
        written = self._model_config["max_batch_size"]
        if written > max_batch_size:
            raise self._refuse(f"sets max_batch_size {max_batch_size}, but the configuration says {written}")
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self):
        """Turns dynamic batching on, with its defaults."""
        for other in ("sequence_batching", "ensemble_scheduling"):
            if self._model_config.get(other) is not None:
                raise self._refuse(f"sets dynamic_batching, but the configuration has {other}")
        if self._model_config.get("dynamic_batching") is None:
            self._model_config["dynamic_batching"] = {}

    def add_input(self, input):
        """Adds an input: a dictionary with name, data_type, dims and perhaps optional."""
        self._add("input", input, ("name", "data_type", "dims", "optional"))

    def add_output(self, output):
        """Adds an output: a dictionary with name, data_type and dims."""
        self._add("output", output, ("name", "data_type", "dims"))

    def _add(self, kind, tensor, known):
        for field in ("name", "data_type", "dims"):
            if field not in tensor:
                raise self._refuse(f"adds {kind} '{tensor.get('name', '')}' without '{field}'")
        for field in tensor:
            if field not in known:
                raise self._refuse(f"adds {kind} '{tensor['name']}' with '{field}', allowed are {', '.join(known)}")
        for written in self._model_config[kind]:
            if written["name"] == tensor["name"]:
                return self._fill(kind, written, tensor)
        self._model_config[kind].append(tensor)

    def _fill(self, kind, written, tensor):
        for field in ("data_type", "dims"):
            if written.get(field) not in _UNSET and written[field] and written[field] != tensor[field]:
                raise self._refuse(
                    f"adds {kind} '{tensor['name']}' with {field} {tensor[field]}, but the configuration says {written[field]}"
                )
        written.update(tensor)

    def set_model_transaction_policy(self, transaction_policy_dict):
        """Says whether the model is decoupled: {"decoupled": True}."""
        for field in transaction_policy_dict:
            if field != "decoupled":
                raise self._refuse(f"sets '{field}' in model_transaction_policy, which has 'decoupled' only")
        policy = self._model_config.get("model_transaction_policy")
        wanted = transaction_policy_dict.get("decoupled", False)
        if policy and policy.get("decoupled", wanted) != wanted:
            raise self._refuse(f"sets decoupled to {wanted}, but the configuration says {policy['decoupled']}")
        self._model_config["model_transaction_policy"] = {"decoupled": wanted}


def _by_name(config, kind, name):
    return next((tensor for tensor in config.get(kind) or () if tensor["name"] == name), None)


def get_input_config_by_name(model_config, name):
    """The input of this name in a configuration, or None."""
    return _by_name(model_config, "input", name)


def get_output_config_by_name(model_config, name):
    """The output of this name in a configuration, or None."""
    return _by_name(model_config, "output", name)


def using_decoupled_model_transaction_policy(model_config):
    """Whether the model gives any number of responses."""
    return bool((model_config.get("model_transaction_policy") or {}).get("decoupled", False))
