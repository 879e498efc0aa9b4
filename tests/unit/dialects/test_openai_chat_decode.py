"""What servers of the OpenAI wire do that the recordings do not show."""

import json
from typing import Any

import pytest

from router_service.core.content import Media, Part, Reasoning, Text, ToolCall
from router_service.core.events import Event, FinishReason, TextDelta, ToolCallStart, UsageUpdated
from router_service.core.faults import Fault, Reason
from router_service.core.fold import Answer, fold
from router_service.dialects.base import BodyFrame, Quirks, SseFrame
from router_service.dialects.openai_chat import OpenAIChat
from tests.suites.dialect_suite import decode, decode_body

DIALECT = OpenAIChat()
STOP: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def stream(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def events_of(*chunks: dict[str, Any], quirks: Quirks = Quirks()) -> list[Event]:
    return decode(DIALECT, [stream(*chunks)], quirks)


def answer_of(*chunks: dict[str, Any], quirks: Quirks = Quirks()) -> Answer:
    return fold(events_of(*chunks, quirks=quirks), dialect=DIALECT.name, provider="p")


def kinds(answer: Answer) -> list[Any]:
    return [part.kind for part in answer.parts]


def call(arguments: object = "", **fields: Any) -> dict[str, Any]:
    name = fields.pop("name", None)
    return {**fields, "function": {"arguments": arguments, **({"name": name} if name else {})}}


def usage_of(usage: dict[str, Any], quirks: Quirks = Quirks()) -> UsageUpdated:
    events = events_of(STOP, {"choices": [], "usage": usage}, quirks=quirks)
    return next(event for event in events if isinstance(event, UsageUpdated))


def test_the_first_content_is_not_held_back() -> None:
    decoder = DIALECT.decoder(Quirks())
    events = decoder.feed(SseFrame("", json.dumps(delta(content="a")).encode()))
    assert TextDelta(0, "a") in events


def test_a_tool_call_starts_as_soon_as_it_has_a_name() -> None:
    decoder = DIALECT.decoder(Quirks())
    assert not decoder.feed(SseFrame("", json.dumps(delta(tool_calls=[call("{", index=0, id="x")])).encode()))[1:]
    events = decoder.feed(SseFrame("", json.dumps(delta(tool_calls=[call(index=0, name="f")])).encode()))
    assert [event.start for event in events if hasattr(event, "start")] == [ToolCallStart("x", "f")]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # the id in every piece
        ([call("{", index=0, id="a", name="f"), call("}", index=0, id="a")], [ToolCall("a", "f", "{}")]),
        # no number, the id in every piece
        ([call("{", id="a", name="f"), call("}", id="a")], [ToolCall("a", "f", "{}")]),
        # no number, the id only at first
        ([call("{", id="a", name="f"), call("}")], [ToolCall("a", "f", "{}")]),
        # whole calls that are all numbered 0
        (
            [call("{}", index=0, id="a", name="f"), call("[]", index=0, id="b", name="f")],
            [ToolCall("a", "f", "{}"), ToolCall("b", "f", "[]")],
        ),
        # no arguments at all
        ([call(None, index=0, id="a", name="f")], [ToolCall("a", "f", "{}")]),
        # the name again in every piece
        ([call("{", index=0, id="a", name="f"), call("}", index=0, name="f")], [ToolCall("a", "f", "{}")]),
        # an id that is a number
        ([call("{}", index=0, id=7, name="f")], [ToolCall("7", "f", "{}")]),
    ],
)
def test_pieces_of_tool_calls_find_together(pieces: list[dict[str, Any]], expected: list[ToolCall]) -> None:
    answer = answer_of(*[delta(tool_calls=[piece]) for piece in pieces], STOP)
    assert kinds(answer) == expected
    assert answer.finish is not None
    assert answer.finish.reason is FinishReason.TOOL_CALLS


def test_a_tool_call_without_a_name_is_the_servers_fault() -> None:
    with pytest.raises(Fault) as caught:
        events_of(delta(tool_calls=[call("{}", index=0, id="a")]), STOP)
    assert caught.value.metadata["violation"] == "tool_call_without_name"


def test_the_old_way_to_call_a_function_still_works() -> None:
    answer = answer_of(
        delta(function_call={"name": "f", "arguments": "{"}), delta(function_call={"arguments": "}"}), STOP
    )
    assert kinds(answer) == [ToolCall("call_c1_0", "f", "{}")]


def test_text_and_reasoning_take_turns() -> None:
    answer = answer_of(delta(reasoning_content="a"), delta(content="b"), delta(reasoning="c"), delta(content="d"), STOP)
    assert kinds(answer) == [Reasoning("a"), Text("b"), Reasoning("c"), Text("d")]


def test_reasoning_that_goes_back_is_kept_in_the_state_too() -> None:
    quirks = Quirks(replay_reasoning_field="reasoning_content")
    answer = answer_of(
        delta(reasoning_content="a"), delta(reasoning_content="b"), delta(content="c"), STOP, quirks=quirks
    )
    state = answer.parts[0].provider_state
    assert state is not None
    assert json.loads(state.data) == {"reasoning_content": "ab"}


def test_state_that_comes_late_does_not_tear_the_text() -> None:
    detail = {"type": "reasoning.encrypted", "data": "AA==", "index": 0}
    answer = answer_of(delta(content="a"), delta(reasoning_details=[detail]), delta(content="b"), STOP)
    assert kinds(answer) == [Text("ab"), Reasoning("")]
    state = answer.parts[1].provider_state
    assert state is not None
    assert json.loads(state.data) == {"reasoning_details": [detail]}


def test_details_are_joined_by_kind_and_number() -> None:
    pieces = [
        {"type": "reasoning.summary", "summary": "a", "index": 0},
        {"type": "reasoning.summary", "summary": "b", "index": 0, "id": "x"},
        {"type": "reasoning.summary", "summary": "c", "index": 1},
        {"type": "reasoning.encrypted", "data": "A", "index": 1},
        {"type": "reasoning.encrypted", "data": "B", "index": 1},
    ]
    answer = answer_of(*[delta(reasoning_details=[piece]) for piece in pieces], STOP)
    assert kinds(answer) == [Reasoning("abc")]
    state = answer.parts[0].provider_state
    assert state is not None
    assert json.loads(state.data)["reasoning_details"] == [
        {"type": "reasoning.summary", "summary": "ab", "index": 0, "id": "x"},
        {"type": "reasoning.summary", "summary": "c", "index": 1},
        {"type": "reasoning.encrypted", "data": "A", "index": 1},
        {"type": "reasoning.encrypted", "data": "B", "index": 1},
    ]


def test_media_stand_between_texts() -> None:
    image = {"image_url": {"url": "https://example.org/a.png"}}
    answer = answer_of(delta(content="a"), delta(images=[image]), delta(content="b"), STOP)
    assert kinds(answer) == [Text("a"), Media("image/*", uri="https://example.org/a.png"), Text("b")]


def test_only_the_first_choice_is_read() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}
    assert answer_of(delta(content="yes"), second, STOP).parts == (Part(Text("yes")),)


def test_nothing_after_the_sentinel_is_read() -> None:
    events = decode(DIALECT, [stream(delta(content="a"), STOP) + b"data: {broken\n\n" + stream(delta(content="b"))])
    assert fold(events, dialect="d", provider="p").parts == (Part(Text("a")),)


def test_the_sentinel_without_a_finish_reason_is_a_cut() -> None:
    with pytest.raises(Fault) as caught:
        events_of(delta(content="a"))
    assert caught.value.metadata["violation"] == "truncated"


@pytest.mark.parametrize("word", ["error", "network_error", "insufficient_system_resource"])
def test_a_finish_that_is_a_failure_is_a_fault(word: str) -> None:
    with pytest.raises(Fault) as caught:
        events_of({"choices": [{"index": 0, "delta": {}, "finish_reason": word}]})
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        ({"error": "plain words"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"error": {"code": "429", "message": "x"}}, Reason.UPSTREAM_RATE_LIMITED),
        ({"error": {"code": 402, "message": "x"}}, Reason.UPSTREAM_BALANCE_EXHAUSTED),
        ({"object": "error", "message": "x", "code": 400}, Reason.UPSTREAM_REJECTED_REQUEST),
        ({"choices": [{"error": {"code": 503, "message": "x"}}]}, Reason.UPSTREAM_UNAVAILABLE),
        ({"base_resp": {"status_code": 1002}}, Reason.UPSTREAM_UNAVAILABLE),  # what it means: the provider's data
    ],
)
def test_an_error_inside_a_stream_is_raised(chunk: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Fault) as caught:
        events_of(delta(content="a"), chunk)
    assert caught.value.reason is reason


def test_fields_that_could_be_errors_but_are_not_do_no_harm() -> None:
    harmless = {**delta(content="a"), "error": None, "base_resp": {"status_code": 0, "status_msg": ""}}
    assert answer_of(harmless, STOP).parts == (Part(Text("a")),)


def test_an_error_event_that_is_not_json_is_still_an_error() -> None:
    with pytest.raises(Fault) as caught:
        decode(DIALECT, [b"event: error\ndata: overloaded\n\n"])
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE


@pytest.mark.parametrize("data", [b"{", b"[]", b"1", b'{"choices":5}', b'{"choices":[{"delta":{"content":"\xff"}}]}'])
def test_what_is_not_the_protocol_is_a_violation(data: bytes) -> None:
    for frame in (SseFrame("", data), BodyFrame(data)):
        with pytest.raises(Fault) as caught:
            DIALECT.decoder(Quirks()).feed(frame)
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION


def test_a_body_without_an_answer_is_an_error() -> None:
    for body, reason in (
        (b'{"choices":[]}', Reason.UPSTREAM_PROTOCOL_VIOLATION),
        (b'{"detail":"Not allowed"}', Reason.UPSTREAM_UNAVAILABLE),
        (b'{"error":{"type":"invalid_request_error"}}', Reason.UPSTREAM_REJECTED_REQUEST),
    ):
        with pytest.raises(Fault) as caught:
            decode_body(DIALECT, body)
        assert caught.value.reason is reason


def test_a_body_that_does_not_say_why_it_ended_is_an_answer() -> None:
    answer = fold(decode_body(DIALECT, b'{"choices":[{"message":{"content":"a"}}]}'), dialect="d", provider="p")
    assert answer.finish is not None
    assert (answer.finish.reason, answer.finish.provider_reason) == (FinishReason.UNKNOWN, "")


def test_reasoning_that_is_counted_apart_is_added_to_the_output() -> None:
    details = {"reasoning_tokens": 30}
    by_total = {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 75, "completion_tokens_details": details}
    assert usage_of(by_total).usage.output_tokens == 70
    inside = {**by_total, "total_tokens": 45}
    assert usage_of(inside).usage.output_tokens == 40
    assert usage_of(inside, Quirks(counts_reasoning_apart=True)).usage.output_tokens == 70


def test_a_gateways_charge_agrees_with_its_tokens_only_if_reasoning_is_added() -> None:
    """Vercel, Gemini 2.5 Flash at 0.30 and 2.50 USD per million: from a recording."""
    report = {
        "prompt_tokens": 28,
        "completion_tokens": 5,
        "total_tokens": 33,
        "cost": 0.0001409,
        "completion_tokens_details": {"reasoning_tokens": 48},
    }
    event = usage_of(report)
    assert event.usage.output_tokens == 53
    assert event.charged_usd_nanos == 28 * 300 + 53 * 2500


def test_cached_tokens_that_are_counted_apart_are_added_to_the_input() -> None:
    apart = {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 161}}
    usage = usage_of(apart).usage
    assert (usage.input_tokens, usage.cache_read_tokens) == (168, 161)
    inside = {**apart, "prompt_tokens": 200}
    assert usage_of(inside).usage.input_tokens == 200
    assert usage_of(inside, Quirks(counts_cache_apart=True)).usage.input_tokens == 361


@pytest.mark.parametrize(
    "report", [{"cached_tokens": 3}, {"prompt_cache_hit_tokens": 3}, {"prompt_tokens_details": {"cached_tokens": 3}}]
)
def test_cached_tokens_are_found_in_all_their_places(report: dict[str, Any]) -> None:
    assert usage_of({"prompt_tokens": 9, **report}).usage.cache_read_tokens == 3


@pytest.mark.parametrize(
    ("report", "nanos"),
    [
        ({"cost": 0.1}, 100_000_000),
        ({"cost": 1e-12}, 1),
        ({"cost": {"total_cost": 0.00501}}, 5_010_000),
        ({"cost": "0.25"}, 250_000_000),
        ({"cost": None}, None),
        ({"cost": -1}, None),
        ({"cost": "NaN"}, None),
        ({"cost": 1e300}, None),
        ({"cost_in_usd_ticks": 2279400}, 227_940),
        ({}, None),
    ],
)
def test_a_charge_is_read_to_the_last_digit(report: dict[str, Any], nanos: int | None) -> None:
    assert usage_of({"prompt_tokens": 1, **report}).charged_usd_nanos == nanos


def test_the_report_is_kept_as_it_was() -> None:
    body = b'data: {"choices":[],"usage":{"prompt_tokens": 1,  "cost":0.10}}\n\n' + stream(STOP)
    events = decode(DIALECT, [body])
    assert (
        next(event.json for event in events if isinstance(event, UsageUpdated)) == '{"prompt_tokens": 1,  "cost":0.10}'
    )


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (b"\\ud83d\\ude00", "\U0001f600"),
        (b"a\\ud83d", "a\ufffd"),
        (b"\\ude00b", "\ufffdb"),
        (b"\\ud83d\\n\\\\ud83d", "\ufffd\n\\ud83d"),
        (b"\\ud83d\\ud83d\\ude00", "\ufffd\U0001f600"),
    ],
)
def test_half_a_surrogate_pair_does_not_end_an_answer(escaped: bytes, text: str) -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"' + escaped + b'"}}]}\n\n'
    answer = fold(decode(DIALECT, [chunk + stream(STOP)]), dialect="d", provider="p")
    assert answer.parts == (Part(Text(text)),)


def test_a_signature_without_text_has_a_part_of_its_own() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    answer = answer_of(delta(extra_content=extra, tool_calls=[call("{}", index=0, id="a", name="f")]), STOP)
    assert kinds(answer) == [ToolCall("a", "f", "{}"), Reasoning("")]
    state = answer.parts[1].provider_state
    assert state is not None
    assert json.loads(state.data) == {"extra_content": extra}


def test_a_server_that_changes_its_id_in_every_chunk_is_known_by_the_first() -> None:
    answer = answer_of({**delta(content="a"), "id": "one"}, {**delta(content="b"), "id": "two"}, STOP)
    assert answer.identity.request_id == "one"


def test_sources_of_the_whole_answer_come_once() -> None:
    found = [{"url": "https://a.org", "title": "A", "snippet": "s"}, {"url": "https://b.org"}]
    chunk = {**delta(content="x"), "search_results": found, "citations": ["https://a.org"]}
    answer = answer_of(chunk, chunk, STOP)
    text = answer.parts[0].kind
    assert isinstance(text, Text)
    assert [(source.uri, source.title, source.quote) for source in text.citations] == [
        ("https://a.org", "A", "s"),
        ("https://b.org", "", ""),
    ]
    answer = answer_of({**delta(content="x"), "citations": ["https://a.org"]}, STOP)
    text = answer.parts[0].kind
    assert isinstance(text, Text)
    assert [source.uri for source in text.citations] == ["https://a.org"]


def test_empty_data_is_nothing() -> None:
    assert list(DIALECT.decoder(Quirks()).feed(SseFrame("", b" "))) == []


def test_a_signature_of_a_call_is_its_state() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    answer = answer_of(delta(tool_calls=[{**call("{}", index=0, id="a", name="f"), "extra_content": extra}]), STOP)
    state = answer.parts[0].provider_state
    assert state is not None
    assert json.loads(state.data) == {"extra_content": extra}


def test_odd_pieces_are_passed_over() -> None:
    answer = answer_of(
        delta(reasoning=""),
        delta(reasoning_details=["odd"], reasoning="r"),
        delta(annotations=[{"type": "file"}], content="a"),
        delta(content=[{"type": "image_url", "image_url": "data:image/png;base64,AA=="}]),
        delta(annotations=[{"type": "url_citation", "url_citation": {"url": "https://a.org"}}]),
        STOP,
    )
    first, second, third, fourth = kinds(answer)
    assert (first, second, third) == (Reasoning("r"), Text("a"), Media("image/png", b"\0"))
    assert isinstance(fourth, Text)
    assert [found.uri for found in fourth.citations] == ["https://a.org"]


@pytest.mark.parametrize("url", ["data:image/png,plain", "data:image/png;base64,AA=", "data:"])
def test_media_that_cannot_be_read_are_the_servers_fault(url: str) -> None:
    with pytest.raises(Fault) as caught:
        events_of(delta(images=[{"image_url": {"url": url}}]), STOP)
    assert caught.value.metadata["violation"] == "malformed"


@pytest.mark.parametrize(("number", "tokens"), [(12.0, 12), (12.5, None), (-1, None), (2**70, None)])
def test_numbers_of_tokens_are_whole(number: float, tokens: int | None) -> None:
    assert usage_of({"prompt_tokens": number}).usage.input_tokens == tokens
