"""Data URLs (RFC 2397): how JSON wires carry bytes."""

import base64
import binascii

from router_service.core.faults import violation


def make_data_url(media_type: str, data: bytes) -> str:
    """Bytes as a URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def read_data_url(url: str) -> tuple[str, bytes]:
    """The media type and the bytes of a URL that a provider sent."""
    head, comma, text = url.removeprefix("data:").partition(",")
    if not comma or not head.endswith(";base64"):
        raise violation("malformed", "The provider sent media in a data URL that is not base64.")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise violation("malformed", "The provider sent media in a data URL that is not base64.") from None
    return head.removesuffix(";base64").partition(";")[0] or "application/octet-stream", data
