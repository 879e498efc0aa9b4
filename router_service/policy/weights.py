"""Which endpoint of a model comes first, where their weights say how often each does."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from router_service.catalog.catalog import Endpoint


@dataclass(frozen=True, slots=True)
class Draw:
    """Endpoints in their order. `share` is how often the first one leads, from 0 to 1; None where nothing was drawn."""

    endpoints: Sequence[Endpoint]
    share: float | None = None

    def share_of(self, endpoint: Endpoint) -> float | None:
        """The share of the one that was drawn; the others follow it and have none."""
        return self.share if endpoint is self.endpoints[0] else None


def draw_by_weight(endpoints: Sequence[Endpoint], model: str, owner: str, seed: float) -> Draw:
    """The drawn one first, the others behind it in the catalog's order. Without weights nothing is drawn.

    The same owner, a conversation or a user, draws the same one for a model as long as the weights stay; without an
    owner `seed` draws.
    """
    weights = [endpoint.weight for endpoint in endpoints]
    if all(weight is None for weight in weights):
        return Draw(endpoints)
    shares = [1 if weight is None else weight for weight in weights]
    whole = sum(shares)
    left = (_point(model, owner) if owner else seed) * whole
    for endpoint, share in zip(endpoints, shares, strict=True):
        if left < share:
            return Draw((endpoint, *(other for other in endpoints if other is not endpoint)), share / whole)
        left -= share
    return Draw(endpoints)


def _point(model: str, owner: str) -> float:
    digest = sha256(f"{owner}\0{model}".encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)
