"""The state machine of versions."""

from itertools import product
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vault_service.core.states import TRANSITIONS, Event, VersionState, may_lease, step


def test_destroyed_is_never_left() -> None:
    for event in Event:
        assert step(VersionState.DESTROYED, event) in (None, VersionState.DESTROYED)


def test_everything_can_be_destroyed_and_nothing_else_leads_there() -> None:
    for state in VersionState:
        assert step(state, Event.DESTROYED) is VersionState.DESTROYED
    for (_, event), after in TRANSITIONS.items():
        assert (after is VersionState.DESTROYED) == (event is Event.DESTROYED)


def test_only_activation_makes_active_and_nothing_makes_pending() -> None:
    for (state, event), after in TRANSITIONS.items():
        assert (after is VersionState.ACTIVE) == (event is Event.ACTIVATED), state
        assert after is not VersionState.PENDING


@given(st.lists(st.sampled_from(Event)))
def test_no_sequence_of_events_leaves_the_states(events: list[Event]) -> None:
    state = VersionState.PENDING
    for event in events:
        state = step(state, event) or state
        assert state in VersionState


def test_what_is_leased_for_what() -> None:
    leased = {
        (state, is_trial)
        for state, is_trial in product(VersionState, (False, True))
        if may_lease(state, is_trial=is_trial)
    }
    assert leased == {
        (VersionState.ACTIVE, False),
        (VersionState.ACTIVE, True),
        (VersionState.PENDING, True),
        (VersionState.SUPERSEDED, True),
    }


OPERATING = Path(__file__).parents[3] / "docs" / "operating.md"


def table() -> str:
    """The transitions as operators read them."""
    head = ["", *(event.value.replace("_", " ") for event in Event)]
    rows = [[f"`{state.value}`", *(_cell(step(state, event)) for event in Event)] for state in VersionState]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in [head, ["---"] * len(head), *rows])


def _cell(after: VersionState | None) -> str:
    return f"`{after.value}`" if after else "-"


def diagram() -> str:
    """The same as a picture, without what changes nothing."""
    arrows = [
        f"    {before.value} --> {after.value}: {event.value}"
        for (before, event), after in TRANSITIONS.items()
        if before is not after
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> PENDING: added", *arrows, "```"])


def test_the_documented_states_are_those_of_the_table() -> None:
    text = OPERATING.read_text()
    assert table() in text
    assert diagram() in text
