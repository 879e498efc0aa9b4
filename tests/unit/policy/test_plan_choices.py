"""Which model a call means: overrides of its context, the free pool, dated names, models beside the catalog."""

from dataclasses import replace
from typing import Any

import pytest

from router_service.catalog.catalog import DeploymentCredential, Snapshot, index_references
from router_service.core.endpoint import AuthScheme
from router_service.core.faults import Fault, Reason
from router_service.core.resolution import (
    CandidateReason,
    ModelSource,
    OverrideLayer,
    Payer,
    SkippedModelChoice,
    SkipReason,
)
from router_service.policy.call import Call, Plan, RoutePolicy
from router_service.policy.plan import plan
from tests.unit.policy.world import NOW, call, holdings, model, provider, snapshot

EVERYTHING = holdings(user="one two three", organization="one two three", deployment="one two three")


def in_context(
    context: str, reference: str = "", *, user: str = "ada", organization: Any = None, **fields: Any
) -> Call:
    """A call of a user for a context."""
    made = call(reference, **fields)
    owner = replace(made.organization, **(organization or {}))
    return replace(made, context=context, user=user, organization=owner)


def decide(made: Call, configured: Snapshot | None = None, seed: float = 0.0) -> Plan:
    return plan(made, configured or snapshot(), EVERYTHING, NOW, seed)


def first(decided: Plan) -> tuple[str, ModelSource]:
    return decided.candidates[0].model.id, decided.candidates[0].source


EVERY_LAYER = {
    "personal_overrides_enabled": True,
    "personal_overrides": {"ada": {"general": "n", "root": "n", "title": "n"}},
    "overrides": {"general": "o", "root": "o", "title": "o"},
}


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("general", ("n", ModelSource.PERSONAL_OVERRIDE)),
        ("root", ("n", ModelSource.PERSONAL_OVERRIDE)),
        ("title", ("o", ModelSource.ADMINISTRATOR_OVERRIDE)),
        ("explore", ("m", ModelSource.CALL)),
        ("unheard-of", ("m", ModelSource.CALL)),
        ("", ("m", ModelSource.CALL)),
    ],
)
def test_a_context_says_which_layers_may_override_it(context: str, expected: tuple[str, ModelSource]) -> None:
    assert first(decide(in_context(context, "m", organization=EVERY_LAYER))) == expected


def test_the_gate_closes_personal_overrides() -> None:
    closed = {**EVERY_LAYER, "personal_overrides_enabled": False}
    assert first(decide(in_context("general", organization=closed))) == ("o", ModelSource.ADMINISTRATOR_OVERRIDE)
    assert first(decide(in_context("root", "m", organization=closed))) == ("m", ModelSource.CALL)


def test_overrides_of_others_are_not_mine() -> None:
    for user in ("bob", ""):
        found = first(decide(in_context("general", user=user, organization=EVERY_LAYER)))
        assert found == ("o", ModelSource.ADMINISTRATOR_OVERRIDE)


def test_an_applications_override_stands_above_the_organizations() -> None:
    made = in_context("title", organization=EVERY_LAYER, overrides={"title": "m"})
    assert first(decide(made)) == ("m", ModelSource.ADMINISTRATOR_OVERRIDE)


def test_an_application_declares_contexts() -> None:
    layers = {"overrides": {"review": "o"}}
    assert first(decide(in_context("review", "m", organization=layers))) == ("m", ModelSource.CALL)
    declared = {"review": frozenset({OverrideLayer.ADMINISTRATOR})}
    made = in_context("review", "m", organization=layers, contexts=declared)
    assert first(decide(made)) == ("o", ModelSource.ADMINISTRATOR_OVERRIDE)


def test_stored_choices_that_cannot_be_used_are_passed_over_and_named() -> None:
    configured = snapshot(
        model("m", "one"), model("off", "one", is_enabled=False), model("barred", "one"), default_model="gone"
    )
    layers = {
        "personal_overrides_enabled": True,
        "personal_overrides": {"ada": {"general": "off"}},
        "overrides": {"general": "barred"},
        "default_model": "m",
    }
    made = in_context(
        "general", organization=layers, overrides={"general": "gone"}, allowed_models=("m",), default_model="barred"
    )
    decided = decide(made, configured)
    assert first(decided) == ("m", ModelSource.ORGANIZATION_DEFAULT)
    assert decided.skipped_choices == (
        SkippedModelChoice(ModelSource.PERSONAL_OVERRIDE, "off", SkipReason.MODEL_DISABLED),
        SkippedModelChoice(ModelSource.ADMINISTRATOR_OVERRIDE, "gone", SkipReason.MODEL_NOT_FOUND),
        SkippedModelChoice(ModelSource.ADMINISTRATOR_OVERRIDE, "barred", SkipReason.MODEL_NOT_ALLOWED),
        SkippedModelChoice(ModelSource.APPLICATION_DEFAULT, "barred", SkipReason.MODEL_NOT_ALLOWED),
    )


def test_a_wrong_model_of_the_call_is_an_error_also_below_a_skipped_override() -> None:
    made = in_context("general", "gone", organization={"overrides": {"general": "vanished"}})
    with pytest.raises(Fault) as caught:
        decide(made)
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def free_world() -> Snapshot:
    configured = snapshot(free_models=("n", "gone", "o", "m"))
    served = {name: DeploymentCredential(name, name, frozenset({Payer.FREE})) for name in ("one", "two", "three")}
    return replace(configured, deployment_credentials=served)


def free_call(**fields: Any) -> Call:
    return call("free", payers=(Payer.USER_KEY, Payer.FREE), **fields)


@pytest.mark.parametrize(
    ("seed", "order"),
    [
        (0.0, ["n", "o", "m", "m"]),
        (0.34, ["o", "m", "m", "n"]),
        (0.67, ["m", "m", "n", "o"]),
        (1.0, ["m", "m", "n", "o"]),
    ],
)
def test_the_free_pool_turns_and_costs_nobody_anything(seed: float, order: list[str]) -> None:
    decided = decide(free_call(), free_world(), seed)
    assert [one.model.id for one in decided.candidates] == order
    assert {one.payer for one in decided.candidates} == {Payer.FREE}
    assert {one.reason for one in decided.candidates} == {CandidateReason.FREE_POOL}
    assert [one.reason for one in decided.skipped if one.payer is Payer.USER_KEY] == [SkipReason.PAYER_EXCLUDED]


def test_the_free_pool_is_only_for_applications_that_have_it() -> None:
    decided = decide(call("free", payers=(Payer.USER_KEY, Payer.CREDITS)), free_world())
    assert decided.candidates == ()
    assert decided.failure is not None
    assert (decided.failure.reason, decided.failure.metadata["model"]) == (Reason.NO_USABLE_CREDENTIAL, "free")
    narrowed = free_call(policy=RoutePolicy(payers=(Payer.USER_KEY,)))
    assert decide(narrowed, free_world()).failure is not None
    only = decide(free_call(allowed_models=("o",)), free_world(), 0.9)
    assert [one.model.id for one in only.candidates] == ["o"]


def test_an_own_native_key_does_not_bar_the_free_pool() -> None:
    decided = decide(free_call(native_provider="three"), free_world())
    assert decided.candidates[0].payer is Payer.FREE


def test_the_free_payer_serves_a_named_model_where_nobody_comes_first() -> None:
    made = call("m", payers=(Payer.USER_KEY, Payer.FREE))
    decided = plan(made, free_world(), holdings(deployment="one"), NOW)
    assert [(one.model.id, one.payer) for one in decided.candidates] == [("m", Payer.FREE)]


def test_an_empty_pool_as_a_default_is_passed_over() -> None:
    decided = decide(call("", default_model="free"))
    assert decided.skipped_choices == (
        SkippedModelChoice(ModelSource.APPLICATION_DEFAULT, "free", SkipReason.MODEL_NOT_FOUND),
    )
    pooled = decide(call("", default_model="free", payers=(Payer.FREE,)), free_world())
    assert first(pooled) == ("n", ModelSource.APPLICATION_DEFAULT)


@pytest.mark.parametrize("reference", ["up-20260115", "up@20260115", "up-2026-01-15"])
def test_a_dated_name_goes_upstream_as_it_was_written(reference: str) -> None:
    made = model("vendor/up", "one", "two")
    known = replace(made, endpoints=(replace(made.endpoints[0], upstream_model="up"), made.endpoints[1]))
    configured = snapshot(known)
    configured = replace(configured, references=index_references(configured.models))
    (found,) = decide(call(reference), configured).candidates
    assert (found.model.id, found.provider.id, found.endpoint.upstream_model) == ("vendor/up", "one", reference)
    for unknown in ("up-20261", "down-20260115", "up-19990101"):
        with pytest.raises(Fault) as caught:
            decide(call(unknown), configured)
        assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_model_beside_the_catalog_needs_leave_and_has_no_price() -> None:
    with pytest.raises(Fault) as caught:
        decide(call("one:some/model:free"))
    assert caught.value.reason is Reason.MODEL_NOT_ALLOWED
    decided = decide(call("one:some/model:free", allows_uncatalogued=True))
    (found,) = decided.candidates
    assert (found.model.id, found.endpoint.upstream_model) == ("one:some/model:free", "some/model:free")
    priced = call("one:x", allows_uncatalogued=True, payers=(Payer.CREDITS,))
    assert decide(priced).failure is not None
    for barred in (call("one:x", allows_uncatalogued=True, allowed_models=("two:*",)), call("one:x")):
        with pytest.raises(Fault) as caught:
            decide(barred)
        assert caught.value.reason is Reason.MODEL_NOT_ALLOWED
    for odd in ("nobody:x", "one:", ":x", "one:\x07", "one"):
        with pytest.raises(Fault) as caught:
            decide(call(odd, allows_uncatalogued=True))
        assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_an_organizations_own_entries_are_paid_with_its_own_keys() -> None:
    own = replace(model("m", "one"), owner="organizations/acme")
    assert {one.payer for one in decide(call(), snapshot(own)).candidates} == {Payer.USER_KEY}
    sold = decide(call(payers=(Payer.SHARED_KEY, Payer.CREDITS)), snapshot(own))
    assert {one.reason for one in sold.skipped} == {SkipReason.MODEL_NOT_ALLOWED}


def test_an_organizations_own_provider_without_a_key_serves_it() -> None:
    lab = replace(provider("lab", auth=AuthScheme.NONE), id="organizations/acme/providers/lab")
    own = replace(model("m", lab.id), owner="organizations/acme")
    decided = plan(call(), snapshot(own, providers=(lab,)), holdings(), NOW)
    (found,) = decided.candidates
    assert (found.payer, found.credential, found.provider.name) == (Payer.ORGANIZATION_KEY, None, lab.id)


def test_the_reason_for_a_place_is_told() -> None:
    assert decide(call()).candidates[0].reason is CandidateReason.CATALOG_ORDER
    assert decide(call(provider_order=("two",))).candidates[0].reason is CandidateReason.APPLICATION_ORDER
    asked = call(policy=RoutePolicy(provider_order=("two",)))
    assert decide(asked).candidates[0].reason is CandidateReason.CALL_ORDER
