"""What botocore, AWS's own client, makes of Bedrock's answers and thinks of requests to it."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.eventstream import EventStream
from botocore.model import ServiceModel
from botocore.parsers import create_parser
from botocore.session import get_session
from botocore.validate import ParamValidator

_SERVICE = "bedrock-runtime"
_BLOBS = frozenset({"bytes", "redactedContent"})


@cache
def service() -> ServiceModel:
    """The model of the service that comes with botocore."""
    return get_session().get_service_model(_SERVICE)


class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        """What urllib3's response gives."""
        yield self._body


def read_stream(body: bytes, operation: str = "ConverseStream") -> list[dict[str, Any]]:
    """The events of a stream. Raises botocore's EventStreamError for an exception in it."""
    shape: Any = service().operation_model(operation).output_shape
    (member,) = [found for found in shape.members.values() if found.serialization.get("eventstream")]
    parser = create_parser("rest-json")
    raw: Any = _Body(body)
    return list(EventStream(raw, member, parser._event_stream_parser, operation))  # type: ignore[attr-defined]


def read_body(body: bytes) -> dict[str, Any]:
    """A whole answer."""
    shape: Any = service().operation_model("Converse").output_shape
    answer: Any = {"status_code": 200, "headers": {}, "body": body}
    parsed: dict[str, Any] = create_parser("rest-json").parse(answer, shape)
    return parsed


def problems_of(body: dict[str, Any], model: str) -> str:
    """What botocore's validation, and the patterns that it does not look at, say of a request's body."""
    shape: Any = service().operation_model("Converse").input_shape
    report = ParamValidator().validate({"modelId": model, **_with_bytes(body)}, shape)
    return "; ".join([report.generate_report(), *_broken_patterns(body, shape)]).strip("; ")


def _with_bytes(value: Any) -> Any:
    """Blobs as a caller of botocore has them: bytes and not base64."""
    if isinstance(value, dict):
        return {
            key: inner.encode() if key in _BLOBS and isinstance(inner, str) else _with_bytes(inner)
            for key, inner in value.items()
        }
    return [_with_bytes(inner) for inner in value] if isinstance(value, list) else value


def _broken_patterns(value: Any, shape: Any) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(value, dict) and not getattr(shape, "is_document_type", False):
        for key, inner in value.items():
            if key not in shape.members:
                yield f"{shape.name} has no {key}"
            else:
                yield from _broken_patterns(inner, shape.members[key])
    elif shape.type_name == "list":
        for inner in value:
            yield from _broken_patterns(inner, shape.member)
    elif shape.type_name == "string":
        enum, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
        if enum and value not in enum:
            yield f"{shape.name} is not {value}"
        if pattern and not re.fullmatch(pattern, value):
            yield f"{shape.name} does not match: {value}"
