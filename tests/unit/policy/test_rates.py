"""Which rates apply to a call, and the guess of its tokens."""

from router_service.catalog.catalog import Application, Organization, RateLimits
from router_service.core.caller import Caller
from router_service.core.content import Media, Message, Part, Role, Text, ToolCall, ToolResult
from router_service.core.request import Completion, Settings
from router_service.core.secret import Secret
from router_service.policy.call import Call
from router_service.policy.rates import MEDIA_TOKENS, UNSTATED_OUTPUT_TOKENS, Rate, estimate_tokens, rates_of

CALLER = Caller("t1", "organizations/acme", "", "", frozenset(), frozenset(), 0.0, Secret("x"))
CHAT = "organizations/acme/applications/chat"
ADA = "organizations/acme/users/ada"


def make_call(**limits: RateLimits) -> Call:
    application = Application(CHAT, limits=limits.pop("application", RateLimits()))
    return Call("", Organization("acme", **limits), application)  # type: ignore[arg-type] # only limits are given


def test_without_limits_nothing_applies() -> None:
    assert rates_of(make_call(), CALLER, ADA, 100) == []


def test_every_tier_applies_to_its_owner() -> None:
    one = RateLimits(requests_per_minute=1)
    call = make_call(limits=one, user_limits=one, token_limits=one, application=one)
    owners = [(rate.tier, rate.owner) for rate in rates_of(call, CALLER, ADA, 100)]
    assert owners == [("organization", "organizations/acme"), ("application", CHAT), ("user", ADA), ("token", "t1")]
    assert [rate.tier for rate in rates_of(call, CALLER, "", 100)] == ["organization", "application", "token"]


def test_a_call_larger_than_a_minute_takes_the_minute() -> None:
    call = make_call(limits=RateLimits(tokens_per_minute=50))
    assert rates_of(call, CALLER, "", 100) == [Rate("organization", "tokens", "organizations/acme", 50, 50)]
    assert rates_of(call, CALLER, "", 20)[0].cost == 20


def test_tokens_are_guessed_from_text_media_and_the_answers_bound() -> None:
    def guess(*parts: Part, settings: Settings = Settings()) -> int:
        return estimate_tokens(Completion("m", "", (Message(Role.USER, parts),), settings=settings))

    assert guess(Part(Text(""))) == UNSTATED_OUTPUT_TOKENS
    bound = Settings(max_output_tokens=7)
    assert guess(Part(Text("")), settings=bound) == 7
    assert guess(Part(Text("x" * 300)), settings=bound) > 7 + 60
    assert guess(Part(Media("image/png", b"x" * 10**6)), settings=bound) == 7 + MEDIA_TOKENS
    for kind in (ToolCall("i", "n", "x" * 300), ToolResult("i", (Text("x" * 300),))):
        assert guess(Part(kind), settings=bound) == guess(Part(Text("x" * 300)), settings=bound)
