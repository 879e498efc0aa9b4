"""Which of several ways comes first, where their weights say how often each does."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, Protocol, TypeVar


class Weighted(Protocol):
    """An endpoint of a model, or a route to fall back to."""

    @property
    def weight(self) -> int | None:
        """How often it leads, beside the weights of the others; None counts as 1 where another one has a weight."""
        ...


Way = TypeVar("Way", bound=Weighted)


@dataclass(frozen=True, slots=True)
class Draw(Generic[Way]):
    """Ways in their order. `share` is how often the first one leads, from 0 to 1; None where nothing was drawn."""

    ways: Sequence[Way]
    share: float | None = None

    def share_of(self, way: Way) -> float | None:
        """The share of the one that was drawn; the others follow it and have none."""
        return self.share if way is self.ways[0] else None


def draw_by_weight(ways: Sequence[Way], name: str, owner: str, seed: float) -> Draw[Way]:
    """The drawn one first, the others behind it in their order. Without weights nothing is drawn.

    The same owner, a conversation or a user, draws the same one under a name as long as the weights stay; without an
    owner `seed` draws.
    """
    weights = [way.weight for way in ways]
    if all(weight is None for weight in weights):
        return Draw(ways)
    shares = [1 if weight is None else weight for weight in weights]
    whole = sum(shares)
    left = (_point(name, owner) if owner else seed) * whole
    for way, share in zip(ways, shares, strict=True):
        if left < share:
            return Draw((way, *(other for other in ways if other is not way)), share / whole)
        left -= share
    return Draw(ways)


def _point(name: str, owner: str) -> float:
    digest = sha256(f"{owner}\0{name}".encode()).digest()
    return int.from_bytes(digest[:6]) / (1 << 48)
