"""Which framer a response gets: by the dialect's framing and the body's type."""

import pytest

from router_service.dialects.base import Framing
from router_service.framing.aws_eventstream import AwsEventStreamFramer
from router_service.framing.framer import CONTENT_TYPES, open_framer
from router_service.framing.sse import SseFramer


@pytest.mark.parametrize(
    ("framing", "content_type", "kind"),
    [
        (Framing.SSE, "text/event-stream", SseFramer),
        (Framing.SSE, "Text/Event-Stream; charset=utf-8", SseFramer),
        (Framing.AWS_EVENT_STREAM, "application/vnd.amazon.eventstream", AwsEventStreamFramer),
    ],
)
def test_a_streamed_body_gets_the_framer_of_its_dialect(framing: Framing, content_type: str, kind: type) -> None:
    assert isinstance(open_framer(framing, content_type), kind)


@pytest.mark.parametrize("content_type", ["", "application/json", "text/html", "application/octet-stream"])
def test_a_body_of_another_type_is_read_whole(content_type: str) -> None:
    for framing in Framing:
        assert open_framer(framing, content_type) is None


def test_one_wires_stream_is_not_read_as_anothers() -> None:
    for framing in Framing:
        for other in set(CONTENT_TYPES.values()) - {CONTENT_TYPES[framing]}:
            assert open_framer(framing, other) is None
