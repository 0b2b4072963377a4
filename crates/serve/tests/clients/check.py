"""Drives a running server with the official clients and says what each of them saw.

    pip install openai anthropic ollama
    tangelo serve fixtures/tiny --port 8080 &
    python crates/serve/tests/clients/check.py http://127.0.0.1:8080

Every check is about the protocol, not about what the model says, so a model with random weights will do. Exits with 1
if a check fails.
"""

import json
import sys
import traceback

import anthropic
import ollama
import openai

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "sure": {"type": "boolean"}},
    "required": ["colour", "sure"],
    "additionalProperties": False,
}
QUESTION = [{"role": "user", "content": "What is the weather in Ulm?"}]
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Clients:
    """One client of each kind for one server."""

    def __init__(self, url, key):
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        self.anthropic = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)
        self.ollama = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"})
        self.model = self.openai.models.list().data[0].id


def is_answer(value):
    """Whether a text is JSON of SCHEMA."""
    found = json.loads(value)
    assert set(found) == {"colour", "sure"} and found["colour"] in ("red", "blue"), found
    assert isinstance(found["sure"], bool), found


# OpenAI -------------------------------------------------------------------------------------------------------------


@check
def openai_models(c):
    model = c.openai.models.retrieve(c.model)
    assert model.id == c.model and model.object == "model"


@check
def openai_chat(c):
    answer = c.openai.chat.completions.create(
        model=c.model, messages=QUESTION, max_tokens=12, seed=1, reasoning_effort="none"
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert 1 <= answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@check
def openai_chat_cached(c):
    ask = lambda: c.openai.chat.completions.create(model=c.model, messages=QUESTION * 3, max_tokens=4, seed=1)
    ask()
    details = ask().usage.prompt_tokens_details
    assert details.cached_tokens > 0, details


@check
def openai_chat_stream(c):
    options = dict(model=c.model, messages=QUESTION, max_tokens=24, seed=2, temperature=0)
    whole = c.openai.chat.completions.create(**options)
    chunks = list(c.openai.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    said = "".join(delta.content or "" for delta in deltas)
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    message = whole.choices[0].message
    assert said == (message.content or ""), (said, message.content)
    assert thought == (getattr(message, "reasoning_content", None) or "")
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


@check
def openai_chat_several(c):
    answer = c.openai.chat.completions.create(model=c.model, messages=QUESTION, max_tokens=4, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


@check
def openai_chat_logprobs(c):
    answer = c.openai.chat.completions.create(
        model=c.model, messages=QUESTION, max_tokens=4, logprobs=True, top_logprobs=2
    )
    tokens = answer.choices[0].logprobs.content
    assert tokens and all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens), tokens


@check
def openai_chat_tools(c):
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    options = dict(model=c.model, messages=QUESTION, tools=[tool], max_tokens=300, reasoning_effort="none")
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = c.openai.chat.completions.create(tool_choice=choice, parallel_tool_calls=False, **options)
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "weather" and set(json.loads(call.function.arguments)) == {"city"}, call
        assert answer.choices[0].finish_reason == "tool_calls"
    history = QUESTION + [
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    assert c.openai.chat.completions.create(**{**options, "messages": history, "max_tokens": 4}).choices


@check
def openai_chat_tools_stream(c):
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    with c.openai.chat.completions.stream(
        model=c.model, messages=QUESTION, tools=[tool], tool_choice="required", max_tokens=300, reasoning_effort="none"
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds, kinds
    assert final.choices[0].message.tool_calls[0].function.name == "weather"


@check
def openai_chat_schema(c):
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
    answer = c.openai.chat.completions.create(
        model=c.model, messages=QUESTION, response_format=wanted, max_tokens=200, reasoning_effort="none"
    )
    is_answer(answer.choices[0].message.content)


@check
def openai_chat_regex(c):
    answer = c.openai.chat.completions.create(
        model=c.model, messages=QUESTION, max_tokens=60, reasoning_effort="none",
        extra_body={"guided_regex": "[0-9]{4}-[0-9]{2}"},
    )
    text = answer.choices[0].message.content
    assert len(text) == 7 and text[4] == "-" and text.replace("-", "").isdigit(), text


@check
def openai_refusals(c):
    for body in ({"response_format": {"type": "xml"}}, {"tool_choice": "maybe"}, {"temperature": "hot"}):
        try:
            c.openai.chat.completions.create(model=c.model, messages=QUESTION, extra_body=body)
        except openai.BadRequestError as error:
            assert error.body["param"].split(".")[0] in body, error.body
        else:
            raise AssertionError(f"{body} was accepted")


@check
def openai_completions(c):
    answer = c.openai.completions.create(model=c.model, prompt=["One", "Two"], max_tokens=4, n=2)
    assert sorted(choice.index for choice in answer.choices) == [0, 1, 2, 3]
    chunks = list(c.openai.completions.create(model=c.model, prompt="One", max_tokens=4, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    echoed = c.openai.completions.create(model=c.model, prompt="One", max_tokens=2, echo=True)
    assert echoed.choices[0].text.startswith("One"), echoed.choices[0].text


@check
def openai_embeddings(c):
    answer = c.openai.embeddings.create(model=c.model, input=["One", "Two"])
    plain = c.openai.embeddings.create(model=c.model, input="One", encoding_format="float")
    assert len(answer.data) == 2
    # The client asks for base64 by itself, and reads more digits from it than a decimal number has.
    pairs = list(zip(answer.data[0].embedding, plain.data[0].embedding, strict=True))
    assert all(abs(left - right) <= 1e-6 * (1 + abs(right)) for left, right in pairs), pairs
    assert answer.data[0].embedding != answer.data[1].embedding


@check
def openai_responses(c):
    options = dict(model=c.model, max_output_tokens=8, instructions="Be brief and be kind. " * 40)
    first = c.openai.responses.create(input="Hello", **options)
    assert first.status in ("completed", "incomplete") and first.output
    second = c.openai.responses.create(input="And now?", previous_response_id=first.id, **options)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0, second.usage
    assert c.openai.responses.retrieve(first.id).id == first.id
    c.openai.responses.delete(first.id)
    try:
        c.openai.responses.retrieve(first.id)
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("a deleted response is still there")


@check
def openai_responses_stream(c):
    with c.openai.responses.stream(model=c.model, input="Hello", max_output_tokens=16) as stream:
        events = list(stream)
    # The client's own `get_final_response` knows no incomplete ones.
    final = events[-1].response
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"], kinds
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.usage.output_tokens <= 16


@check
def openai_responses_tools(c):
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    options = dict(model=c.model, tools=[tool], reasoning={"effort": "none"}, max_output_tokens=300)
    answer = c.openai.responses.create(input="Weather?", tool_choice="required", parallel_tool_calls=False, **options)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert set(json.loads(call.arguments)) == {"city"}, call
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    assert c.openai.responses.create(input=[result], previous_response_id=answer.id, **options).output


@check
def openai_responses_schema(c):
    answer = c.openai.responses.create(
        model=c.model, input="A colour?", reasoning={"effort": "none"}, max_output_tokens=200,
        text={"format": {"type": "json_schema", "name": "s", "schema": SCHEMA, "strict": True}},
    )
    is_answer(answer.output_text)


# Anthropic ----------------------------------------------------------------------------------------------------------


@check
def anthropic_message(c):
    message = c.anthropic.messages.create(model=c.model, max_tokens=8, messages=QUESTION, system="Be brief.")
    assert message.role == "assistant" and message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.output_tokens <= 8


@check
def anthropic_stream(c):
    options = dict(model=c.model, max_tokens=24, messages=QUESTION, extra_body={"temperature": 0})
    whole = c.anthropic.messages.create(**options)
    with c.anthropic.messages.stream(**options) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert events[0] == "message_start" and events[-1] == "message_stop", events
    assert [block.model_dump() for block in final.content] == [block.model_dump() for block in whole.content]
    assert final.usage.output_tokens == whole.usage.output_tokens


@check
def anthropic_thinking(c):
    message = c.anthropic.messages.create(
        model=c.model, max_tokens=2000, messages=QUESTION, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    assert message.content[0].type == "thinking" and message.content[0].signature, message.content


@check
def anthropic_tools(c):
    tool = {"name": "weather", "input_schema": WEATHER}
    options = dict(model=c.model, max_tokens=300, tools=[tool])
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        choice = {**choice, "disable_parallel_tool_use": True}
        message = c.anthropic.messages.create(messages=QUESTION, tool_choice=choice, **options)
        (call,) = [block for block in message.content if block.type == "tool_use"]
        assert set(call.input) == {"city"} and message.stop_reason == "tool_use", message
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history = QUESTION + [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]},
        {"role": "user", "content": [result]},
    ]
    assert c.anthropic.messages.create(messages=history, **{**options, "max_tokens": 4}).usage


@check
def anthropic_tools_stream(c):
    tool = {"name": "weather", "input_schema": WEATHER}
    with c.anthropic.messages.stream(
        model=c.model, max_tokens=300, messages=QUESTION, tools=[tool], tool_choice={"type": "any"}
    ) as stream:
        final = stream.get_final_message()
    assert any(block.type == "tool_use" and set(block.input) == {"city"} for block in final.content), final


@check
def anthropic_count(c):
    counted = c.anthropic.messages.count_tokens(model=c.model, messages=QUESTION)
    usage = c.anthropic.messages.create(model=c.model, max_tokens=1, messages=QUESTION).usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)


@check
def anthropic_refusal(c):
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    try:
        c.anthropic.messages.create(model=c.model, max_tokens=1, messages=[{"role": "user", "content": [image]}])
    except anthropic.BadRequestError as error:
        assert error.body["type"] == "error" and error.body["error"]["type"] == "invalid_request_error", error.body
    else:
        raise AssertionError("an image was accepted")


# Ollama -------------------------------------------------------------------------------------------------------------


@check
def ollama_chat(c):
    options = dict(model=c.model, messages=QUESTION, think=False, options={"num_predict": 12, "temperature": 0})
    whole = c.ollama.chat(**options)
    parts = list(c.ollama.chat(stream=True, **options))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert parts[-1].done and parts[-1].eval_count == whole.eval_count and whole.total_duration > 0


@check
def ollama_generate(c):
    answer = c.ollama.generate(model=c.model, prompt="Hello", options={"num_predict": 4}, think=False)
    assert answer.done and answer.done_reason in ("stop", "length")
    assert c.ollama.generate(model=c.model, prompt="Hello", raw=True, options={"num_predict": 4}).done
    assert c.ollama.generate(model=c.model, prompt="").done_reason == "load"


@check
def ollama_schema(c):
    answer = c.ollama.chat(
        model=c.model, messages=QUESTION, format=SCHEMA, think=False, options={"num_predict": 200}
    )
    is_answer(answer.message.content)


@check
def ollama_tools(c):
    tool = {"type": "function", "function": {"name": "weather", "description": "?", "parameters": WEATHER}}
    assert c.ollama.chat(model=c.model, messages=QUESTION, tools=[tool], options={"num_predict": 8}).done
    history = QUESTION + [
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Ulm"}}}]},
        {"role": "tool", "tool_name": "weather", "content": "rain"},
    ]
    assert c.ollama.chat(model=c.model, messages=history, tools=[tool], options={"num_predict": 8}).done


@check
def ollama_models(c):
    assert c.ollama.list().models[0].model == c.model
    assert "completion" in c.ollama.show(c.model).capabilities
    assert c.ollama.ps().models[0].model == c.model


def main():
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
    key = sys.argv[2] if len(sys.argv) > 2 else "none"
    clients = Clients(url.rstrip("/"), key)
    failed = 0
    for function in CHECKS:
        try:
            function(clients)
            print(f"ok      {function.__name__}")
        except Exception:  # Whatever it is, the other checks are still to be made.
            failed += 1
            print(f"FAILED  {function.__name__}")
            traceback.print_exc(limit=-2)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
