"""Every shared recording of the Anthropic wire on Bedrock's InvokeModel and on Vertex, against Anthropic's own SDK."""

import json
from typing import Any

import pytest

from router_service.core.content import Message, Part, Role, Text
from router_service.core.faults import Fault, Reason
from router_service.core.request import Completion
from router_service.dialects.anthropic_messages import AnthropicMessages
from router_service.dialects.base import Carrier, Quirks, SseFrame
from router_service.framing.aws_chunks import AwsChunksFramer
from tests.suites.aws_messages import event
from tests.suites.dialect_suite import PROVIDER, Recording, check_cuts, is_whole_json, recordings, run

DIALECT = AnthropicMessages()
BEDROCK, VERTEX = Quirks(carrier=Carrier.BEDROCK), Quirks(carrier=Carrier.VERTEX)
RECORDINGS = [(r, BEDROCK) for r in recordings("bedrock-invoke")] + [
    (r, VERTEX) for r in recordings("vertex-anthropic")
]
OTHER_VENDORS = ("amazon-nova", "amazon-titan", "guardrail-invoke-stream")  # wires that are not spoken here
NEEDS_RECORDINGS = pytest.mark.skipif(not RECORDINGS, reason="no recordings: set KEYSWITCH_RECORDINGS")
ASKED = Message(Role.USER, (Part(Text("Hi")),))


def wire_events(recording: Recording) -> list[dict[str, Any]]:
    """The events that the recording wraps."""
    if recording.id.startswith("bedrock"):
        return [json.loads(frame.data) for frame in AwsChunksFramer().feed(recording.body)]
    lines = [line for line in recording.body.splitlines() if line.startswith(b"data:")]
    return [json.loads(line[5:]) for line in lines]


def is_other(recording: Recording) -> bool:
    return any(name in recording.id for name in OTHER_VENDORS)


@NEEDS_RECORDINGS
@pytest.mark.parametrize(("recording", "quirks"), [pytest.param(r, q, id=r.id) for r, q in RECORDINGS])
def test_a_recording_is_read(recording: Recording, quirks: Quirks) -> None:
    if recording.status != 200:
        fault = DIALECT.decode_error(recording.status, recording.headers, recording.body)
        wanted = Reason.UPSTREAM_UNAVAILABLE if recording.status == 503 else Reason.UPSTREAM_MODEL_MISSING
        assert fault.reason is wanted
        return
    outcome = run(DIALECT, recording.body, quirks=quirks)
    if is_other(recording):
        assert outcome.reason is Reason.UPSTREAM_PROTOCOL_VIOLATION
        return
    assert outcome.answer is not None
    assert outcome.answer.finish is not None
    text = "".join(part.kind.text for part in outcome.answer.parts if isinstance(part.kind, Text))
    if is_whole_json(recording.body):
        assert outcome.answer.finish.provider_reason == json.loads(recording.body)["stop_reason"]
        return
    found = wire_events(recording)
    deltas = [one["delta"] for one in found if one["type"] == "content_block_delta"]
    assert text == "".join(delta.get("text", "") for delta in deltas)
    (last,) = [one for one in found if one["type"] == "message_delta"]
    assert outcome.answer.finish.provider_reason == last["delta"]["stop_reason"]
    assert outcome.answer.usage is not None
    assert outcome.answer.usage.output_tokens == last["usage"]["output_tokens"]
    check_cuts(DIALECT, recording.body, outcome, limit=50, quirks=quirks)


@pytest.mark.parametrize(
    ("quirks", "stream", "path", "version"),
    [
        (BEDROCK, True, "/model/us.x-v1%3A0/invoke-with-response-stream", "bedrock-2023-05-31"),
        (BEDROCK, False, "/model/us.x-v1%3A0/invoke", "bedrock-2023-05-31"),
        (VERTEX, True, "/us.x-v1%3A0:streamRawPredict", "vertex-2023-10-16"),
        (VERTEX, False, "/us.x-v1%3A0:rawPredict", "vertex-2023-10-16"),
    ],
)
def test_a_carrier_has_the_model_in_the_path(quirks: Quirks, stream: bool, path: str, version: str) -> None:
    encoded = DIALECT.encode(Completion("us.x-v1:0", PROVIDER, (ASKED,), stream=stream), quirks)
    body = json.loads(encoded.body)
    assert encoded.path == path
    assert body["anthropic_version"] == version
    assert "model" not in body
    assert "anthropic-version" not in encoded.headers
    assert body.get("stream", False) is (stream and quirks is VERTEX)


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"{broken", b'{"bytes":"%"}', b'{"bytes":7}'])
def test_a_chunk_that_holds_no_event_is_a_violation(payload: bytes) -> None:
    with pytest.raises(Fault) as caught:
        list(AwsChunksFramer().feed(event("chunk", payload)))
    assert caught.value.metadata == {"violation": "malformed"}


def test_an_exception_ends_the_chunks_that_came_before_it() -> None:
    framer = AwsChunksFramer()
    body = event("chunk", b'{"bytes":"e30="}') + event("later", b"{}")
    found = framer.feed(body + event("throttlingException", b"{}", "exception"))
    assert next(found) == SseFrame("", b"{}")
    with pytest.raises(Fault) as caught:
        next(found)
    assert caught.value.reason is Reason.UPSTREAM_RATE_LIMITED
