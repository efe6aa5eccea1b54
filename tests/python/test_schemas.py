"""Answers that are held to a schema, at temperature 1: a few each time, a thousand in the full run."""

import collections
import concurrent.futures
import json
import os

import jsonschema
import openai

from schemas import nested

FULL = "TRIREME_TEST_FULL" in os.environ
SCHEMAS, EACH = (64, 16) if FULL else (16, 1)
MOST_TOKENS = 400


def test_every_answer_is_of_its_schema(full_server):
    """Cut-off ones are at most 1 %, and nothing but cut off."""
    ends, depths = collections.Counter(), collections.Counter()
    with openai.OpenAI(base_url=full_server.url("/v1"), api_key="none", max_retries=0, timeout=600) as client:
        def one(number):
            schema = nested(number // EACH)
            answer = client.chat.completions.create(
                model="smollm2", temperature=1, seed=number, max_tokens=MOST_TOKENS,
                messages=[{"role": "user", "content": "Make up an example, as JSON."}],
                response_format={"type": "json_schema", "json_schema": {"name": "example", "schema": schema, "strict": True}})
            [choice] = answer.choices
            return schema, choice.finish_reason, choice.message.content

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for schema, end, text in pool.map(one, range(SCHEMAS * EACH)):
                ends[end] += 1
                if end == "stop":
                    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
                    depths[depth(json.loads(text))] += 1
                else:
                    assert end == "length", text
    print(f"\n{SCHEMAS * EACH} answers to {SCHEMAS} schemas: {dict(ends)}; by depth {dict(sorted(depths.items()))}")
    assert len({json.dumps(nested(seed)) for seed in range(SCHEMAS)}) == SCHEMAS
    assert ends["length"] <= 0.01 * SCHEMAS * EACH, ends
    assert max(depths) >= 4


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0
