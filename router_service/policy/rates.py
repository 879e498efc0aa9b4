"""Which rate limits apply to a call, and what it takes of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from router_service.catalog.catalog import RateLimits
from router_service.core.caller import Caller
from router_service.core.content import Media, Part, Reasoning, Text, ToolCall, ToolResult
from router_service.core.money import estimate_input_tokens
from router_service.core.request import Completion, Embedding
from router_service.policy.call import Call

UNSTATED_OUTPUT_TOKENS = 1024
"""Counted for an answer whose length the call does not bound; corrected when the answer is known."""

MEDIA_TOKENS = 1024
"""Counted for each image, sound or document, whose size says little; corrected as well."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One limit. `owner` is whom it is for; `cost` what this call takes of it."""

    tier: str  # organization, application, user, token
    unit: str  # requests, tokens
    owner: str
    limit: int
    cost: int

    @property
    def limit_name(self) -> str:
        """As an error names it."""
        return f"{self.unit}_per_minute"


def rates_of(call: Call, caller: Caller, user: str, tokens: int) -> Sequence[Rate]:
    """The limits that a call must keep, from the widest to the narrowest. `tokens` is what it will use, as a guess."""
    organization = call.organization
    name = f"organizations/{organization.id}"
    tiers: list[tuple[str, str, RateLimits]] = [
        ("organization", name, organization.limits),
        ("application", call.application.name, call.application.limits),
    ]
    if user:
        tiers.append(("user", user, organization.user_limits))
    tiers.append(("token", caller.token_id, organization.token_limits))
    return [rate for tier, owner, limits in tiers for rate in _rates(tier, owner, limits, tokens)]


def _rates(tier: str, owner: str, limits: RateLimits, tokens: int) -> Iterator[Rate]:
    if limits.requests_per_minute is not None:
        yield Rate(tier, "requests", owner, limits.requests_per_minute, 1)
    if limits.tokens_per_minute is not None:
        # A call larger than a minute's worth takes the whole minute; else it could never be made.
        yield Rate(tier, "tokens", owner, limits.tokens_per_minute, min(tokens, limits.tokens_per_minute))


def estimate_tokens(asked: Completion | Embedding) -> int:
    """What a call will use, before its provider is known: its text, a round number for media, and its answer."""
    match asked:
        case Embedding(inputs=inputs):
            return estimate_input_tokens(sum(len(text.encode("utf-8", "surrogatepass")) for text in inputs))
        case Completion():
            parts = [part for message in asked.messages for part in message.parts]
            media = sum(isinstance(part.kind, Media) for part in parts)
            output = asked.settings.max_output_tokens
            answer = UNSTATED_OUTPUT_TOKENS if output is None else output
            return estimate_input_tokens(sum(_text_bytes(part) for part in parts)) + media * MEDIA_TOKENS + answer
        case _:
            assert_never(asked)


def _text_bytes(part: Part) -> int:
    match part.kind:
        case Text(text=text) | Reasoning(text=text):
            return len(text.encode("utf-8", "surrogatepass"))
        case ToolCall(arguments_json=json):
            return len(json)
        case ToolResult(content=content):
            return sum(len(item.text.encode("utf-8", "surrogatepass")) for item in content if isinstance(item, Text))
        case _:
            return 0
