"""List prices to protobuf, and what the configuration file calls them."""

from keyswitch.router.v1 import model_service_pb2

from router_service.core.money import Price

PRICES = {
    "input_usd_per_million": "input_usd_nanos_per_million_tokens",
    "output_usd_per_million": "output_usd_nanos_per_million_tokens",
    "cache_read_usd_per_million": "cache_read_usd_nanos_per_million_tokens",
    "cache_write_usd_per_million": "cache_write_usd_nanos_per_million_tokens",
}
"""The file's keys and protobuf's fields."""


def price_proto(price: Price) -> model_service_pb2.ModelPrice:
    """What is known of a price."""
    return model_service_pb2.ModelPrice(
        input_usd_nanos_per_million_tokens=price.input_nanos,
        output_usd_nanos_per_million_tokens=price.output_nanos,
        cache_read_usd_nanos_per_million_tokens=price.cache_read_nanos,
        cache_write_usd_nanos_per_million_tokens=price.cache_write_five_minute_nanos,
    )
