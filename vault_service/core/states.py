"""The states of a credential version, as one table.

    PENDING ──activate──► ACTIVE ──another activated──► SUPERSEDED
       │                    │ ▲                             │
       │ disable            │ └───────── activate ──────────┤
       ▼                    ▼ disable                       ▼ disable
    DISABLED ◄──────────────┴───────────────────────────────┘      any ──destroy──► DESTROYED

A transition that the table lacks is refused. DESTROYED is never left, and destroying again changes nothing.
"""

from collections.abc import Mapping
from enum import Enum, unique


@unique
class VersionState(Enum):
    """The values of keyswitch.vault.v1.CredentialVersionState without their prefix."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUPERSEDED = "SUPERSEDED"
    DISABLED = "DISABLED"
    DESTROYED = "DESTROYED"


@unique
class Event(Enum):
    """What can happen to a version."""

    ACTIVATED = "activated"
    OTHER_ACTIVATED = "other_activated"
    DISABLED = "disabled"
    DESTROYED = "destroyed"


TRANSITIONS: Mapping[tuple[VersionState, Event], VersionState] = {
    (VersionState.PENDING, Event.ACTIVATED): VersionState.ACTIVE,
    (VersionState.ACTIVE, Event.ACTIVATED): VersionState.ACTIVE,
    (VersionState.SUPERSEDED, Event.ACTIVATED): VersionState.ACTIVE,
    (VersionState.DISABLED, Event.ACTIVATED): VersionState.ACTIVE,
    (VersionState.ACTIVE, Event.OTHER_ACTIVATED): VersionState.SUPERSEDED,
    (VersionState.PENDING, Event.DISABLED): VersionState.DISABLED,
    (VersionState.ACTIVE, Event.DISABLED): VersionState.DISABLED,
    (VersionState.SUPERSEDED, Event.DISABLED): VersionState.DISABLED,
    (VersionState.DISABLED, Event.DISABLED): VersionState.DISABLED,
    (VersionState.PENDING, Event.DESTROYED): VersionState.DESTROYED,
    (VersionState.ACTIVE, Event.DESTROYED): VersionState.DESTROYED,
    (VersionState.SUPERSEDED, Event.DESTROYED): VersionState.DESTROYED,
    (VersionState.DISABLED, Event.DESTROYED): VersionState.DESTROYED,
    (VersionState.DESTROYED, Event.DESTROYED): VersionState.DESTROYED,
}


def step(state: VersionState, event: Event) -> VersionState | None:
    """Gives the state after the event, or None where the event cannot happen to it."""
    return TRANSITIONS.get((state, event))


def may_lease(state: VersionState, *, is_trial: bool) -> bool:
    """Whether a version in this state may be leased; to try it also a new and a superseded one."""
    if is_trial:
        return state in (VersionState.PENDING, VersionState.ACTIVE, VersionState.SUPERSEDED)
    return state is VersionState.ACTIVE
