"""Trying a key: one request that costs nothing, and a short completion where a model is to be verified too."""

import json
from dataclasses import dataclass
from enum import Enum

from router_service.catalog.catalog import Endpoint, Provider
from router_service.core.content import Message, Part, Role, Text
from router_service.core.faults import Fault, Reason
from router_service.core.request import Completion, Settings
from router_service.core.secret import Hiding, Secret
from router_service.dialects.base import BodyFrame, Dialect, Quirks
from router_service.dialects.error_rules import ErrorGuide, classify
from router_service.upstream.auth import apply
from router_service.upstream.client import Upstream, UpstreamRequest

TIMEOUT_SECONDS = 20.0
MOST_BODY_BYTES = 4 * 1024 * 1024
MOST_MODELS = 1000


class Outcome(Enum):
    """What a provider says about a key: the values of CredentialTestOutcome without their prefix."""

    PASSED = "PASSED"
    INVALID_KEY = "INVALID_KEY"
    NO_BILLING = "NO_BILLING"
    ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    RATE_LIMITED = "RATE_LIMITED"
    UNREACHABLE = "UNREACHABLE"
    INCONCLUSIVE = "INCONCLUSIVE"


ADVICE = {
    Outcome.PASSED: "The key works.",
    Outcome.INVALID_KEY: "The provider does not accept this key. Copy it anew from the provider's console, whole.",
    Outcome.NO_BILLING: "The key's account has no billing or no money. Add some at the provider, then test again.",
    Outcome.ENDPOINT_NOT_FOUND: "There is no such API at the provider's base URL. The operator should check the URL.",
    Outcome.MODEL_NOT_FOUND: "The key works, but this model does not exist there or is not open to it.",
    Outcome.RATE_LIMITED: "The provider accepts the key and throttles it. Wait a little, then test again.",
    Outcome.UNREACHABLE: "The provider cannot be reached or is down; this says nothing about the key. Try again later.",
    Outcome.INCONCLUSIVE: "The provider's answer says nothing about the key. Try again later.",
}

_OUTCOMES = {
    Reason.UPSTREAM_CREDENTIAL_REJECTED: Outcome.INVALID_KEY,
    Reason.UPSTREAM_BALANCE_EXHAUSTED: Outcome.NO_BILLING,
    Reason.UPSTREAM_RATE_LIMITED: Outcome.RATE_LIMITED,
    Reason.UPSTREAM_UNAVAILABLE: Outcome.UNREACHABLE,
    Reason.UPSTREAM_TIMEOUT: Outcome.UNREACHABLE,
}


_PROMPT = (Message(Role.USER, (Part(Text("Say OK.")),)),)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out."""

    outcome: Outcome
    upstream_status: int | None = None
    retry_after_seconds: float | None = None
    models: tuple[str, ...] = ()


async def probe(upstream: Upstream, provider: Provider, dialect: Dialect, secret: Secret | None) -> Finding:
    """Tries the key alone. Never raises for what the provider does."""
    request = UpstreamRequest(
        "GET",
        provider.base_url.join(provider.key_test_path),
        (("accept", "application/json"), *provider.headers, *_wire_headers(dialect), *apply(provider.auth, secret)),
        b"",
        provider.allowed_private_networks,
    )
    status, found = await _send(upstream, request, dialect, Hiding(secret), provider.errors)
    if isinstance(found, Fault):
        is_missing = status == 404 or found.reason is Reason.UPSTREAM_MODEL_MISSING
        outcome = Outcome.ENDPOINT_NOT_FOUND if is_missing else _OUTCOMES.get(found.reason, Outcome.INCONCLUSIVE)
        return Finding(outcome, status, found.retry_after_seconds)
    models = _models(found)
    if models is None:
        return Finding(Outcome.INCONCLUSIVE, status)
    return Finding(Outcome.PASSED, status, models=models)


async def probe_model(
    upstream: Upstream, provider: Provider, endpoint: Endpoint, dialect: Dialect, secret: Secret | None
) -> Finding:
    """Verifies a model with one answer of at most 16 tokens. Never raises for what the provider does."""
    completion = Completion(
        endpoint.upstream_model, provider.name, _PROMPT, stream=False, settings=Settings(max_output_tokens=16)
    )
    encoded = dialect.encode(completion, endpoint.quirks)
    request = UpstreamRequest(
        encoded.method,
        provider.base_url.join(encoded.path),
        (
            *provider.headers,
            *encoded.headers.items(),
            *apply(provider.auth, secret),
        ),
        encoded.body,
        provider.allowed_private_networks,
    )
    status, found = await _send(upstream, request, dialect, Hiding(secret), provider.errors)
    if isinstance(found, bytes):
        try:
            decoder = dialect.decoder(endpoint.quirks)
            decoder.feed(BodyFrame(found))
            decoder.close()
        except Fault as fault:
            found = classify(fault, provider.errors, {})
    if isinstance(found, Fault):
        is_missing = found.reason is Reason.UPSTREAM_MODEL_MISSING
        outcome = Outcome.MODEL_NOT_FOUND if is_missing else _OUTCOMES.get(found.reason, Outcome.INCONCLUSIVE)
        return Finding(outcome, status, found.retry_after_seconds)
    return Finding(Outcome.PASSED, status)


async def _send(
    upstream: Upstream, request: UpstreamRequest, dialect: Dialect, hide: Hiding, errors: ErrorGuide
) -> tuple[int | None, bytes | Fault]:
    try:
        response = await upstream.send(
            request, connect_timeout_seconds=TIMEOUT_SECONDS, response_timeout_seconds=TIMEOUT_SECONDS
        )
    except Fault as fault:
        return None, fault
    try:
        body = hide(await response.read_all(MOST_BODY_BYTES))
    except Fault as fault:
        return response.status, fault
    finally:
        await response.close()
    if response.status != 200:
        headers = {name: hide.text(value) for name, value in response.headers.items()}
        return response.status, classify(dialect.decode_error(response.status, headers, body), errors, headers)
    return response.status, body


def _wire_headers(dialect: Dialect) -> list[tuple[str, str]]:
    """What every request of a wire carries besides its body's type, such as Anthropic's version."""
    encoded = dialect.encode(Completion("any", "", _PROMPT), Quirks())
    return [(name, value) for name, value in encoded.headers.items() if name != "content-type"]


def _models(body: bytes) -> tuple[str, ...] | None:
    """The ids of a model list, one too many to show that there are more; () for another JSON object; None for none."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    items = answer.get("data")
    if not isinstance(items, list):
        return ()
    return tuple(str(item["id"]) for item in items[: MOST_MODELS + 1] if isinstance(item, dict) and "id" in item)
