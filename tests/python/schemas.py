"""Nested JSON schemas, made by a seed: every one has objects in objects or lists, and no value without a bound."""

import random

WORDS = "name city colour size weight owner tags items state code price unit start end parent note level kind".split()


def leaf(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return {"type": "string", "maxLength": rng.randint(4, 16)}
    if kind == 1:
        return {"type": "integer", "minimum": rng.randint(-50, 0), "maximum": rng.randint(1, 500)}
    if kind == 2:
        return {"type": "boolean"}
    if kind == 3:
        return {"enum": rng.sample(["red", "green", "blue", "none", 1, 2.5, None, True], rng.randint(2, 5))}
    if kind == 4:
        return {"type": "string", "pattern": rng.choice([r"^[A-Z]{2}[0-9]{3}$", r"^[a-z]{1,8}$", r"^(on|off)$", r"^\d{4}-\d{2}$"])}
    if kind == 5:
        return {"const": rng.choice(["fixed", 7, False])}
    if kind == 6:
        return {"type": ["string", "null"], "maxLength": 8}
    return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 99}, {"type": "string", "maxLength": 6}]}


def thing(rng, depth):
    """A schema that is nested `depth` deep."""
    if depth == 0:
        return leaf(rng)
    if rng.random() < 0.3:
        return {"type": "array", "items": thing(rng, depth - 1), "minItems": rng.randint(0, 1), "maxItems": rng.randint(1, 3)}
    keys = rng.sample(WORDS, rng.randint(2, 4))
    properties = {key: thing(rng, depth - 1 if at == 0 else 0) for at, key in enumerate(keys)}
    required = [keys[0]] + [key for key in keys[1:] if rng.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def nested(seed):
    rng = random.Random(seed)
    inner = thing(rng, rng.randint(1, 3))
    schema = {"type": "object", "properties": {"value": inner, "also": leaf(rng)}, "required": ["value", "also"],
              "additionalProperties": False}
    if seed % 4 == 0:
        # The same by reference, and once more inside a list.
        schema["$defs"] = {"part": inner}
        schema["properties"]["value"] = {"$ref": "#/$defs/part"}
        schema["properties"]["more"] = {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 2}
    return schema
