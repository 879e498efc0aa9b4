"""Amounts of money between the configuration file's texts and protobuf's integers."""

from router_service.core.money import NANOS_PER_USD


def nanos_text(nanos: int) -> str:
    """Nano-USD as the file writes them: "0.10". Not negative."""
    whole, fraction = divmod(nanos, NANOS_PER_USD)
    return f"{whole}.{fraction:09d}".rstrip("0").ljust(len(str(whole)) + 3, "0")
