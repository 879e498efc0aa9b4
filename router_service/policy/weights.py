"""Which endpoint of a model comes first, where their weights say how often each does."""

from collections.abc import Sequence
from hashlib import sha256

from router_service.catalog.catalog import Endpoint


def order_by_weight(endpoints: Sequence[Endpoint], model: str, owner: str, seed: float) -> Sequence[Endpoint]:
    """The drawn one first, the others behind it in the catalog's order. Without weights nothing is drawn.

    The same owner, a user, draws the same one for a model as long as the weights stay; without an owner `seed` draws.
    """
    weights = [endpoint.weight for endpoint in endpoints]
    if all(weight is None for weight in weights):
        return endpoints
    shares = [1 if weight is None else weight for weight in weights]
    point = _draw(model, owner) if owner else seed
    left = point * sum(shares)
    for endpoint, share in zip(endpoints, shares, strict=True):
        if left < share:
            return (endpoint, *(other for other in endpoints if other is not endpoint))
        left -= share
    return endpoints


def _draw(model: str, owner: str) -> float:
    digest = sha256(f"{owner}\0{model}".encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)
