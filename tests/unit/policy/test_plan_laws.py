"""What holds of every plan, whatever is configured, owned and asked for."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from router_service.catalog.catalog import DeploymentCredential, Route, Snapshot
from router_service.core.caller import Credential, Holdings
from router_service.core.endpoint import AuthScheme
from router_service.core.faults import Fault, Reason
from router_service.core.resolution import CandidateReason, ModelSource, Payer, PayerFailoverCause
from router_service.policy.call import Call, Needs, Plan, RoutePolicy
from router_service.policy.plan import plan
from router_service.policy.retry import FAILOVER_CAUSES, next_step
from tests.unit.policy.world import NOW, OWNERS, PRICE, call, credential, model, provider, snapshot

PROVIDERS = ("one", "two", "three")
MODELS = ("m", "n", "o")
SUBSETS = st.lists(st.sampled_from(PROVIDERS), unique=True, max_size=3)
PAYERS = st.lists(st.sampled_from(list(Payer)), unique=True, max_size=5)
CAUSES = st.frozensets(st.sampled_from(list(PayerFailoverCause)))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    models = [
        model(
            name,
            *(draw(SUBSETS) or ["one"]),
            price=draw(st.sampled_from([PRICE, PRICE, None])),
            is_enabled=draw(st.integers(0, 5)) > 0,
        )
        for name in MODELS
    ]
    providers = tuple(
        provider(
            name,
            auth=draw(st.sampled_from([AuthScheme.BEARER] * 4 + [AuthScheme.NONE])),
            is_enabled=draw(st.integers(0, 5)) > 0,
            is_byok_supported=draw(st.integers(0, 5)) > 0,
        )
        for name in PROVIDERS
    )
    served = {
        name: DeploymentCredential(
            name, name, frozenset(draw(st.sets(st.sampled_from([Payer.SHARED_KEY, Payer.CREDITS, Payer.FREE]))))
        )
        for name in draw(SUBSETS)
    }
    made = snapshot(
        *models,
        providers=providers,
        byok_enabled=draw(st.integers(0, 4)) > 0,
        default_model=draw(NAMES),
        free_models=tuple(draw(st.lists(st.sampled_from(["m", "n", "o", "gone"]), unique=True, max_size=3))),
    )
    return replace(made, deployment_credentials=served)


NAMES = st.sampled_from(["", "", "m", "n", "o", "gone", "free"])
OVERRIDES = st.dictionaries(st.sampled_from(["general", "title", "root"]), NAMES.filter(bool), max_size=3)


def credentials(owner: str) -> st.SearchStrategy[tuple[Credential, ...]]:
    def make(name: str, fields: dict[str, Any]) -> Credential:
        return credential(owner, name, **fields)

    flaws: list[dict[str, Any]] = [
        {},
        {},
        {},
        {"is_enabled": False},
        {"active_version": ""},
        {"expire_time": NOW},
        {"expire_time": NOW + 1},
        {"allowed_origins": ("https://evil.example",)},
        {"name": f"{owner}/credentials/spare"},
    ]
    one = st.builds(make, st.sampled_from(PROVIDERS), st.sampled_from(flaws))
    return st.lists(one, max_size=4).map(lambda made: tuple(sorted(made, key=lambda item: item.name)))


HOLDINGS = st.builds(
    Holdings,
    credentials(OWNERS[Payer.USER_KEY]),
    credentials(OWNERS[Payer.ORGANIZATION_KEY]),
    credentials(OWNERS[Payer.SHARED_KEY]),
    st.sampled_from([True, True, False]),
)

KEYS = [f"{owner}/credentials/{name}" for owner in OWNERS.values() for name in (*PROVIDERS, "spare")]

ROUTES = st.lists(
    st.builds(
        Route,
        st.sampled_from([*MODELS, "gone"]),
        provider=st.sampled_from(["", "", *PROVIDERS]),
        credential=st.sampled_from(["", "", *KEYS]),
        on_context_too_long=st.booleans(),
    ),
    max_size=2,
).map(tuple)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    policy = RoutePolicy(
        fallbacks=draw(ROUTES),
        provider_order=tuple(draw(SUBSETS)),
        allow_fallbacks=draw(st.booleans()),
        payers=tuple(draw(st.sampled_from([[], [Payer.USER_KEY]]) | PAYERS)),
        payer_failover_on=draw(st.none() | CAUSES),
    )
    bindings = draw(st.dictionaries(st.sampled_from(list(Payer)), st.sampled_from(KEYS), max_size=2))
    made = call(
        draw(NAMES),
        policy=policy,
        payers=tuple(draw(PAYERS) or Payer),
        payer_failover_on=draw(CAUSES | st.just(frozenset(PayerFailoverCause))),
        default_model=draw(NAMES),
        allowed_models=draw(st.sampled_from([("*",), ("*",), ("m",), ("[no]",), ()])),
        native_provider=draw(st.sampled_from(["", "", *PROVIDERS])),
        byok_supported=draw(st.integers(0, 4)) > 0,
        bindings=bindings,
        provider_order=tuple(draw(SUBSETS)),
        fallbacks=draw(ROUTES),
        overrides=draw(OVERRIDES),
    )
    organization = replace(
        made.organization,
        overrides=draw(OVERRIDES),
        personal_overrides_enabled=draw(st.booleans()),
        personal_overrides={"ada": draw(OVERRIDES)},
    )
    context = draw(st.sampled_from(["", "", "general", "title", "root", "other"]))
    made = replace(made, organization=organization, context=context, user=draw(st.sampled_from(["", "ada", "bob"])))
    dialects: frozenset[str] = frozenset(draw(st.sampled_from([(), (), (), ("openai_chat",), ("other",)])))
    return replace(made, needs=Needs(tool_dialects=dialects))


def decide(made: Call, configured: Snapshot, have: Holdings) -> Plan | None:
    """The plan; None where the call itself is wrong."""
    try:
        return plan(made, configured, have, NOW)
    except Fault as fault:
        if fault.reason not in (Reason.INVALID_REQUEST, Reason.MODEL_NOT_FOUND, Reason.MODEL_NOT_ALLOWED):
            raise
        return None


@settings(max_examples=400)
@given(made=calls(), configured=snapshots(), have=HOLDINGS)
def test_nobody_pays_who_may_not_and_no_key_serves_that_cannot(
    made: Call, configured: Snapshot, have: Holdings
) -> None:
    decided = decide(made, configured, have)
    if decided is None:
        return
    application, narrowed = made.application, made.policy.payers
    assert (decided.failure is None) == bool(decided.candidates)
    assert decided.failover_causes <= application.payer_failover_on
    for one in decided.candidates:
        assert one.payer in application.payers
        assert not narrowed or one.payer in narrowed
        assert application.allows(one.model.id)
        assert one.model.is_enabled
        assert one.provider.is_enabled
        assert one.provider.id == one.endpoint.provider
        assert not made.needs.tool_dialects - {one.provider.dialect}
        assert one.payer is not Payer.CREDITS or one.model.price is not None
        if one.payer.is_own_key:
            assert application.byok_supported
            assert one.provider.is_byok_supported
            assert application.native_provider in ("", one.provider.id)
        if one.payer is Payer.USER_KEY:
            assert configured.byok_enabled
            assert have.user_credentials_enabled
        if one.credential is None:
            assert one.provider.is_keyless
            assert not one.payer.is_own_key
            continue
        assert one.credential.is_enabled
        assert one.credential.active_version
        assert one.credential.expire_time is None or one.credential.expire_time > NOW
        assert one.credential.provider == one.provider.name
        assert one.provider.base_url.origin in one.credential.allowed_origins
        if not one.payer.is_own_key:
            assert one.payer in configured.deployment_credentials[one.credential.name.rpartition("/")[2]].payers
        owned = {Payer.USER_KEY: have.user, Payer.ORGANIZATION_KEY: have.organization}.get(one.payer, have.deployment)
        assert one.credential in owned


@settings(max_examples=400)
@given(made=calls(), configured=snapshots(), have=HOLDINGS)
def test_the_first_payer_comes_first_and_alone_without_causes(made: Call, configured: Snapshot, have: Holdings) -> None:
    decided = decide(made, configured, have)
    if decided is None or not decided.candidates:
        return
    order = [made.application.payers.index(one.payer) for one in decided.candidates]
    assert order == sorted(order)
    first = decided.candidates[0].payer
    assert all(one.is_payer_failover == (one.payer is not first) for one in decided.candidates)
    if not decided.failover_causes:
        assert {one.payer for one in decided.candidates} == {first}
    for number, one in enumerate(decided.candidates):
        for reason in Reason:
            step = next_step(Fault(reason, "x"), decided.candidates, number, 1, decided.failover_causes, 0.5)
            if step is not None and decided.candidates[step.candidate].payer is not one.payer:
                assert FAILOVER_CAUSES[reason] in decided.failover_causes
    for payer in {one.payer for one in decided.candidates}:
        is_fallback = [one.source is ModelSource.FALLBACK_ROUTE for one in decided.candidates if one.payer is payer]
        assert is_fallback == sorted(is_fallback)


@given(made=calls(), configured=snapshots(), have=HOLDINGS)
def test_a_plan_is_the_same_every_time(made: Call, configured: Snapshot, have: Holdings) -> None:
    one, two = decide(made, configured, have), decide(made, configured, have)
    assert one == two
    if one is not None and two is not None and one.failure is not None and two.failure is not None:
        assert (one.failure.reason, one.failure.message) == (two.failure.reason, two.failure.message)
        assert one.failure.message == one.failure.message.strip()


@given(made=calls(), configured=snapshots(), have=HOLDINGS)
def test_a_key_that_cannot_be_used_is_as_one_that_is_not_there(
    made: Call, configured: Snapshot, have: Holdings
) -> None:
    def usable(owned: tuple[Credential, ...]) -> tuple[Credential, ...]:
        return tuple(
            one
            for one in owned
            if one.is_enabled
            and one.active_version
            and (one.expire_time is None or one.expire_time > NOW)
            and one.allowed_origins != ("https://evil.example",)
        )

    without = replace(
        have, user=usable(have.user), organization=usable(have.organization), deployment=usable(have.deployment)
    )
    one, two = decide(made, configured, have), decide(made, configured, without)
    assert (one and one.candidates) == (two and two.candidates)


@settings(max_examples=400)
@given(made=calls(), configured=snapshots(), have=HOLDINGS, kept=st.frozensets(st.sampled_from(list(Payer))))
def test_narrowing_adds_nothing(made: Call, configured: Snapshot, have: Holdings, kept: frozenset[Payer]) -> None:
    whole = decide(made, configured, have)
    payers = tuple(payer for payer in made.application.payers if payer in kept)
    if whole is None or not payers or made.policy.payers:
        return
    narrowed = decide(replace(made, policy=replace(made.policy, payers=payers)), configured, have)
    if narrowed is None:
        assert whole.failure is not None, "an own key's refusal came before what the call itself has wrong"
        return
    assert {one.payer for one in narrowed.candidates} <= kept
    if whole.candidates and whole.candidates[0].payer in kept and not made.application.native_provider:
        assert narrowed.candidates
        assert narrowed.candidates[0] == whole.candidates[0]


@given(made=calls(), configured=snapshots(), have=HOLDINGS, seeds=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_chance_only_turns_the_free_pool(
    made: Call, configured: Snapshot, have: Holdings, seeds: tuple[float, float]
) -> None:
    try:
        one, two = (plan(made, configured, have, NOW, seed) for seed in seeds)
    except Fault:
        return
    if not any(found.reason is CandidateReason.FREE_POOL for found in one.candidates):
        assert one.candidates == two.candidates
    assert sorted(map(repr, one.candidates)) == sorted(map(repr, two.candidates))
    assert one.skipped_choices == two.skipped_choices
    assert len(one.skipped_choices) <= 6
