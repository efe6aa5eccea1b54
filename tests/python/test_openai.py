"""The official `openai` client against real models: SmolLM2 writes, MiniLM embeds."""

import base64
import json
import struct
import threading
import time

import httpx
import numpy as np
import openai
import pydantic
import pytest

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client(full_server):
    with openai.OpenAI(base_url=full_server.url("/v1"), api_key="none", max_retries=0, timeout=120) as client:
        yield client


def chat(client, messages=QUESTION, **options):
    return client.chat.completions.create(model="smollm2", messages=messages, **{"temperature": 0, "max_tokens": 32, **options})


def test_models(client):
    assert {model.id for model in client.models.list()} >= {"minilm", "smollm2"}
    assert client.models.retrieve("smollm2").owned_by == "trireme"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("simple")
    assert caught.value.code == "model_not_found"


def test_chat(client):
    answer = chat(client)
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion" and answer.model == "smollm2"
    assert abs(answer.created - time.time()) < 60
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "stop")
    # The prompt has 37 tokens, the answer 8 with the one that ends it.
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (37, 8, 45)
    assert answer._request_id in answer.id


def test_a_conversation_goes_on(client):
    messages = [{"role": "developer", "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
                {"role": "user", "content": [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of France?"}]}]
    first = chat(client, messages)
    assert first.choices[0].message.content == ANSWER and first.usage.prompt_tokens == 37
    messages += [first.choices[0].message.to_dict(), {"role": "user", "content": "And of Italy?"}]
    second = chat(client, messages)
    assert "Rome" in second.choices[0].message.content and second.usage.prompt_tokens > 45


def test_chat_in_a_stream(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(pieces) == ANSWER and sum(map(bool, pieces)) > 4
    assert [chunk.choices[0].finish_reason for chunk in chunks[-4:-1]] == [None, None, "stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_limits_and_stop_strings(client):
    cut = chat(client, max_tokens=None, max_completion_tokens=3).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("The capital of", "length")
    stopped = chat(client, stop=[" Paris", "nowhere"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("The capital of France is", "stop")
    streamed = chat(client, stop=" is", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "The capital of France"


def test_seeds_and_several_answers(client):
    def texts(**options):
        answer = chat(client, [{"role": "user", "content": "Write a word."}], temperature=1.5, max_tokens=6, **options)
        assert [choice.index for choice in answer.choices] == list(range(options.get("n", 1)))
        return [choice.message.content for choice in answer.choices]

    first = texts(n=3, seed=7)
    assert first == texts(n=3, seed=7)
    assert len(set(first)) > 1
    assert len({texts()[0] for _ in range(4)}) > 1, "without a seed every answer is drawn anew"
    assert texts(seed=-5) == texts(seed=-5)


class Capital(pydantic.BaseModel):
    """What a country's capital is."""
    city: str
    inhabitants: int
    languages: list[str]


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Tells the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["celsius", "fahrenheit"]}},
                   "required": ["city", "unit"], "additionalProperties": False}}}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string", "maxLength": 9}}, "required": ["zone"], "additionalProperties": False}}}


def test_structured_output(client):
    messages = [{"role": "user", "content": "What is the capital of France? Answer in JSON."}]
    parsed = client.chat.completions.parse(model="smollm2", messages=messages, response_format=Capital, temperature=0, max_tokens=200)
    assert isinstance(parsed.choices[0].message.parsed, Capital) and parsed.choices[0].finish_reason == "stop"
    for seed in range(5):
        schema = {"type": "object", "properties": {"grade": {"enum": ["good", "bad"]}, "points": {"type": "integer", "minimum": 0, "maximum": 10}},
                  "required": ["grade", "points"], "additionalProperties": False}
        answer = chat(client, messages, temperature=1, seed=seed, stream=seed == 0,
                      response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}})
        text = "".join(c.choices[0].delta.content or "" for c in answer) if seed == 0 else answer.choices[0].message.content
        value = json.loads(text)
        assert value["grade"] in ("good", "bad") and 0 <= value["points"] <= 10 and len(value) == 2
    json_object = chat(client, messages, response_format={"type": "json_object"}, max_tokens=100).choices[0]
    assert json_object.finish_reason == "length" or isinstance(json.loads(json_object.message.content), dict)
    with pytest.raises(openai.BadRequestError, match="no answer can be held to this form"):
        chat(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}})


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tools(client, choice):
    messages = [{"role": "user", "content": "How is the weather in Paris, in celsius?"}]
    options = dict(tools=[CLOCK, WEATHER] if choice != "required" else [WEATHER], tool_choice=choice, max_tokens=100)
    answer = chat(client, messages, **options)
    [choice] = answer.choices
    [call] = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert (call.type, call.function.name) == ("function", "get_weather") and call.id
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"} and arguments["unit"] in ("celsius", "fahrenheit")
    chunks = [chunk.choices[0] for chunk in chat(client, messages, stream=True, **options)]
    calls = [part for chunk in chunks for part in chunk.delta.tool_calls or []]
    assert [(part.index, part.function.name) for part in calls] == [(0, "get_weather")]
    assert json.loads(calls[0].function.arguments) == arguments and chunks[-1].finish_reason == "tool_calls"
    # The call and its result go back, and the model says something about it.
    messages += [choice.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "It is sunny, 21 degrees."}]
    end = chat(client, messages, tools=[WEATHER], tool_choice="none").choices[0]
    assert end.message.content and not end.message.tool_calls


POINT = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["x"], "additionalProperties": False}
LINE = {"type": "object", "properties": {"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}},
        "required": ["from", "to"], "additionalProperties": False, "$defs": {"point": POINT}}
# No grammar holds an array to `uniqueItems`, or a text to a format that nobody knows.
ODD = {"properties": {"few": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3, "uniqueItems": True},
                      "what": {"type": "string", "format": "zebra", "maxLength": 5}}, "required": ["few", "what"], "additionalProperties": False}


def function(name, parameters, **more):
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def forced(client, tools, choice="required", seed=1):
    [choice] = chat(client, tools=tools, tool_choice=choice, temperature=1, seed=seed, max_tokens=150).choices
    [call] = choice.message.tool_calls
    return call.function.name, json.loads(call.function.arguments)


def test_schemas_of_tools(client):
    """A schema may refer to its own parts, alone or beside others; what cannot be held to is left out unless it is strict."""
    for tools in ([function("draw", LINE)], [function("draw", LINE), function("paint", LINE)]):
        _, arguments = forced(client, tools)
        assert set(arguments) == {"from", "to"} and set(arguments["from"]) == {"x"} and 0 <= arguments["to"]["x"] <= 9
    _, arguments = forced(client, [function("odd", ODD)])
    assert len(arguments["few"]) <= 3 and len(arguments["what"]) <= 5
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        forced(client, [function("odd", ODD, strict=True)])
    assert isinstance(forced(client, [function("anything", {})])[1], dict)
    with pytest.raises(openai.BadRequestError) as caught:
        forced(client, [function("f", {"type": "string"})])
    assert (caught.value.param, caught.value.code) == ("tools[0].function.parameters", "invalid_function_parameters")


def test_allowed_tools(client):
    tools = [function("one", POINT), function("two", LINE)]

    def only(name, mode="required"):
        return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": {"name": name}}]}}

    assert {forced(client, tools, only("two"), seed)[0] for seed in range(3)} == {"two"}
    assert chat(client, tools=tools, tool_choice=only("one", "auto")).choices[0].message.content
    for wrong, param in ((only("three"), "tool_choice.allowed_tools.tools[0].function.name"), (only("one", "often"), "tool_choice.allowed_tools.mode")):
        with pytest.raises(openai.BadRequestError) as caught:
            forced(client, tools, wrong)
        assert caught.value.param == param


NOTHING = [{"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, {"enum": []}]


@pytest.mark.parametrize("schema", NOTHING)
def test_a_form_that_nothing_has_harms_nobody_else(client, full_server, schema):
    """It ended the engine with all that ran in it: its slot was given to the next while the executor took it for another's."""
    answers = []
    others = [threading.Thread(target=lambda: answers.append(chat(client).choices[0].message.content)) for _ in range(3)]
    [other.start() for other in others]
    for _ in range(4):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        assert caught.value.param == "response_format"
        assert chat(client).choices[0].message.content == ANSWER
    [other.join() for other in others]
    assert answers == [ANSWER] * 3 and "made anew" not in full_server.output()


def test_recursive_schemas(client):
    # The bias is for `null`, so that lists end.
    node = {"type": "object", "properties": {"value": {"type": "boolean"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
            "required": ["value", "next"], "additionalProperties": False}
    whole = 0
    for seed in range(4):
        form = {"type": "json_schema", "json_schema": {"name": "list", "schema": node, "strict": True}}
        choice = chat(client, temperature=1, seed=seed, max_tokens=300, response_format=form, logit_bias={"10034": 4, "18220": 4}).choices[0]
        if choice.finish_reason == "stop":
            whole += 1
            value = json.loads(choice.message.content)
            while value is not None:
                assert set(value) == {"value", "next"}
                value = value["next"]
    assert whole > 0


def test_tools_that_are_not_needed(client):
    answer = chat(client, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.content == ANSWER and answer.usage.prompt_tokens == 37
    answer = chat(client, tools=[WEATHER])
    assert answer.usage.prompt_tokens > 100, "the model is told of the tools"


def test_logprobs(client):
    choice = chat(client, logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    assert "".join(bytes(entry.bytes).decode() for entry in content) == ANSWER
    # The two likeliest first tokens are known to be 0.1 apart.
    first = content[0]
    assert [top.token for top in first.top_logprobs] == ["The", "L", "La"] and first.token == "The"
    assert first.logprob - first.top_logprobs[1].logprob == pytest.approx(0.1, abs=0.06)
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in content)
    streamed = [entry for chunk in chat(client, logprobs=True, stream=True) if chunk.choices[0].logprobs
                for entry in chunk.choices[0].logprobs.content]
    assert [entry.token for entry in streamed] == [entry.token for entry in content]
    lists = client.completions.create(model="smollm2", prompt="The quick", temperature=0, max_tokens=4, logprobs=2).choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.top_logprobs) == len(lists.text_offset) == 4
    assert lists.text_offset[:2] == [0, len(lists.tokens[0])] and all(len(top) == 2 for top in lists.top_logprobs)


def test_rules(client):
    other = chat(client, logit_bias={"504": -100}, max_tokens=4).choices[0].message.content
    assert not other.startswith("The")
    forced = chat(client, logit_bias={"7042": 100}, max_tokens=3).choices[0].message.content
    assert forced == " Paris" * 3
    assert chat(client, logit_bias={"7042": 50}, frequency_penalty=2, presence_penalty=2, max_tokens=30).choices[0].message.content != " Paris" * 30
    longer = chat(client, extra_body={"min_tokens": 20}).usage.completion_tokens
    assert longer >= 20
    ignored = chat(client, extra_body={"ignore_eos": True}).choices[0]
    assert ignored.finish_reason == "length"
    assert chat(client, temperature=2, seed=3, extra_body={"min_p": 1.0}).choices[0].message.content == ANSWER
    assert chat(client, temperature=2, seed=3, extra_body={"top_k": 1}).choices[0].message.content == ANSWER
    assert chat(client, extra_body={"repetition_penalty": 5.0}).choices[0].message.content != ANSWER


def test_completions(client):
    def complete(prompt, **options):
        return client.completions.create(model="smollm2", prompt=prompt, temperature=0, **options)

    fox = complete("The quick brown fox")
    assert fox.object == "text_completion" and fox.usage.completion_tokens == 16
    assert fox.choices[0].text.startswith(" with a quick brown bear.") and fox.choices[0].finish_reason == "length"
    ids = complete([504, 2365, 6354, 16438], max_tokens=5)
    assert ids.choices[0].text == complete("The quick brown fox", max_tokens=5).choices[0].text
    many = complete(["The quick brown fox", "1, 2, 3,"], max_tokens=4, n=2, echo=True)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text.startswith("The quick brown fox with") and many.choices[2].text.startswith("1, 2, 3, 4")
    assert many.usage.completion_tokens == 16
    streamed = complete("The quick brown fox", max_tokens=5, stream=True, echo=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "The quick brown fox" + ids.choices[0].text


def test_embeddings(client):
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
    answer = client.embeddings.create(model="minilm", input=texts)
    rows = np.array([row.embedding for row in answer.data])
    assert rows.shape == (3, 384) and answer.usage.prompt_tokens == 8 + 11 + 9
    assert rows @ rows[0] == pytest.approx([1, 0.7553, -0.1050], abs=1e-3)
    numbers = client.embeddings.create(model="minilm", input=texts[0], encoding_format="float").data[0].embedding
    assert numbers == pytest.approx(list(rows[0]), abs=1e-6)
    ids = client.embeddings.create(model="minilm", input=[101, 1037, 2158, 2003, 5983, 2833, 1012, 102]).data[0].embedding
    assert ids == pytest.approx(list(rows[0]), abs=1e-6)
    raw = client.embeddings.with_raw_response.create(model="minilm", input=texts[0], encoding_format="base64")
    packed = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
    assert struct.unpack("<384f", packed) == pytest.approx(numbers, abs=1e-6)
    many = client.embeddings.create(model="minilm", input=["word"] * 150)
    assert [row.index for row in many.data] == list(range(150))


BAD = {
    "a role": ("messages[0].role", dict(messages=[{"role": "king", "content": "x"}])),
    "no messages": ("messages", dict(messages=[])),
    "a picture": ("messages[0].content[0].type",
                  dict(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])),
    "a field of a message": ("messages[0].colour", dict(messages=[{"role": "user", "content": "x", "colour": "red"}])),
    "temperature": ("temperature", dict(temperature=3)),
    "top_p": ("top_p", dict(top_p=-0.1)),
    "max_tokens": ("max_tokens", dict(max_tokens=0)),
    "too long an answer": ("messages", dict(max_tokens=9000)),
    "n": ("n", dict(n=1000)),
    "a stop string": ("stop", dict(stop=[""])),
    "stop of a wrong type": ("stop", dict(stop=5)),
    "audio": ("modalities", dict(modalities=["audio"])),
    "a format": ("response_format.type", dict(response_format={"type": "xml"})),
    "a choice without tools": ("tool_choice", dict(tool_choice="required")),
    "a tool": ("tools[0].function.name", dict(tools=[{"type": "function", "function": {"name": "a b"}}])),
    "a choice of none of the tools": ("tool_choice.function.name", dict(
        tools=[{"type": "function", "function": {"name": "f"}}], tool_choice={"type": "function", "function": {"name": "g"}})),
    "top_logprobs alone": ("top_logprobs", dict(top_logprobs=2)),
    "options of no stream": ("stream_options", dict(stream_options={"include_usage": True})),
    "a bias outside the vocabulary": ("logit_bias.99999999", dict(logit_bias={"99999999": 1})),
    "store": ("store", dict(store=True)),
    "a long bad word": ("bad_words", dict(extra_body={"bad_words": ["x" * 5000]})),
    "the name of a form": ("response_format.json_schema.name", dict(
        response_format={"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}})),
    "functions": ("functions", dict(functions=[{"name": "f"}])),
    "an unknown field": ("temprature", dict(extra_body={"temprature": 1})),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(client, name):
    param, options = BAD[name]
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **options)
    assert caught.value.param == param and param in caught.value.message
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError):
        list(chat(client, stream=True, **{k: v for k, v in options.items() if k != "stream_options"},
                  **({"stream_options": {"what": 1}} if "stream_options" in options else {})))


def test_more_errors(client):
    with pytest.raises(openai.BadRequestError, match="maximum context length is 8192") as caught:
        chat(client, [{"role": "user", "content": "word " * 9000}])
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="Did you mean 'temperature'"):
        chat(client, extra_body={"temprature": 1})
    with pytest.raises(openai.NotFoundError, match="'smollm2'"):
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        client.chat.completions.create(model="minilm", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="at most 2048"):
        client.completions.create(model="smollm2", prompt=["a"] * 100, n=100)
    with pytest.raises(openai.BadRequestError, match="'suffix' is not supported"):
        client.completions.create(model="smollm2", prompt="a", suffix="b")
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="minilm", input=["fine", ""])
    assert "input[1]" in caught.value.message
    with pytest.raises(openai.BadRequestError, match="384 dimensions"):
        client.embeddings.create(model="minilm", input="x", dimensions=12)


def test_a_text_of_megabytes_holds_nobody_up(client, full_server):
    """It was read to its end, half a minute in which the model took no other call."""
    huge = "hello world, some text. " * 1_000_000
    start = time.monotonic()
    for ask in (lambda: chat(client, [{"role": "user", "content": huge}]),
                lambda: client.completions.create(model="smollm2", prompt=["fine", huge]),
                lambda: client.embeddings.create(model="minilm", input=[huge])):
        with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
            ask()
        assert caught.value.code == "context_length_exceeded"
    for model, name in (("smollm2", "text_input"), ("minilm", "text")):
        answer = httpx.post(full_server.url(f"/v2/models/{model}/generate"), json={name: huge}, timeout=60)
        assert answer.status_code == 400 and "more" in answer.json()["error"], answer.text[:300]
    assert time.monotonic() - start < 15


def test_a_client_that_leaves_frees_the_model(client, full_server):
    def stories():
        return chat(client, [{"role": "user", "content": "Tell a very long story."}], max_tokens=4000, stream=True)

    stream = stories()
    for _ in range(3):
        next(stream)
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        chat(client.with_options(timeout=0.5), [{"role": "user", "content": "Tell a very long story."}], max_tokens=4000,
             extra_body={"stop_token_ids": []})
    start = time.monotonic()
    assert chat(client).choices[0].message.content == ANSWER
    assert time.monotonic() - start < 20, "the stories are still being told"


def test_the_same_answer_for_many_at_once(client):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(chat(client).choices[0].message.content)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert answers == [ANSWER] * 4


def test_statistics_count_calls(client, full_server):
    def count():
        stats = httpx.get(full_server.url("/v2/models/smollm2/stats")).json()["model_stats"][0]["inference_stats"]
        return int(stats["success"]["count"])

    before = count()
    chat(client)
    list(chat(client, stream=True))
    assert count() == before + 2
