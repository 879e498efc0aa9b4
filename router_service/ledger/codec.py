"""Receipts as JSON and back. JSON, because an operator may look into the database with nothing but its own shell."""

import msgspec

from router_service.core.receipt import Receipt

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Receipt)


def encode(receipt: Receipt) -> bytes:
    """The bytes that are stored."""
    return _encoder.encode(receipt)


def decode(body: bytes) -> Receipt:
    """The receipt again, equal to the one that was encoded."""
    return _decoder.decode(body)
