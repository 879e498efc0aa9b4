"""Trying a key: one request that costs nothing, and a short completion where a model is to be verified too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any

from router_service.catalog.catalog import Endpoint, Provider
from router_service.core.content import Message, Part, Role, Text
from router_service.core.faults import Cause, Fault, Reason, violation
from router_service.core.request import Completion, Settings
from router_service.core.secret import Hiding, Secret
from router_service.dialects.base import BodyFrame, Dialect, Quirks
from router_service.dialects.error_rules import classify
from router_service.upstream.auth import authorize, derived_secret
from router_service.upstream.client import Upstream, UpstreamRequest

TIMEOUT_SECONDS = 20.0
MOST_BODY_BYTES = 4 * 1024 * 1024
MOST_MODELS = 1000


class Outcome(Enum):
    """What a provider says about a key: the values of CredentialTestOutcome without their prefix."""

    PASSED = "PASSED"
    INVALID_KEY = "INVALID_KEY"
    NO_BILLING = "NO_BILLING"
    WRONG_PLAN = "WRONG_PLAN"
    ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    RATE_LIMITED = "RATE_LIMITED"
    CONCURRENCY_EXCEEDED = "CONCURRENCY_EXCEEDED"
    UNREACHABLE = "UNREACHABLE"
    INCONCLUSIVE = "INCONCLUSIVE"


ADVICE = {
    Outcome.PASSED: "The key works.",
    Outcome.INVALID_KEY: "The provider does not accept this key. Copy it anew from the provider's console, whole.",
    Outcome.NO_BILLING: "The key's account has no billing or no money. Add some at the provider, then test again.",
    Outcome.WRONG_PLAN: "The key belongs to another plan of this provider. Save it for that plan's provider.",
    Outcome.ENDPOINT_NOT_FOUND: "There is no such API at the provider's base URL. The operator should check the URL.",
    Outcome.MODEL_NOT_FOUND: "The key works, but this model does not exist there or is not open to it.",
    Outcome.RATE_LIMITED: "The provider accepts the key and throttles it. Wait a little, then test again.",
    Outcome.CONCURRENCY_EXCEEDED: "The provider accepts the key, but allows no further request at once. "
    "Lower its max_concurrent_requests, or wait for its calls to end.",
    Outcome.UNREACHABLE: "The provider cannot be reached or is down; this says nothing about the key. Try again later.",
    Outcome.INCONCLUSIVE: "The provider's answer says nothing about the key. Try again later.",
}

_BY_CAUSE = {
    Cause.CONCURRENCY: Outcome.CONCURRENCY_EXCEEDED,
    Cause.MEMBERSHIP: Outcome.NO_BILLING,
}

_OUTCOMES = {
    Reason.UPSTREAM_CREDENTIAL_REJECTED: Outcome.INVALID_KEY,
    Reason.PLAN_MISMATCH: Outcome.WRONG_PLAN,
    Reason.UPSTREAM_BALANCE_EXHAUSTED: Outcome.NO_BILLING,
    Reason.UPSTREAM_RATE_LIMITED: Outcome.RATE_LIMITED,
    Reason.UPSTREAM_UNAVAILABLE: Outcome.UNREACHABLE,
    Reason.UPSTREAM_TIMEOUT: Outcome.UNREACHABLE,
}


_PROMPT = (Message(Role.USER, (Part(Text("Say OK.")),)),)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out. `detected_plan` is the resource name of the provider whose plan the key looks like."""

    outcome: Outcome
    upstream_status: int | None = None
    retry_after_seconds: float | None = None
    models: tuple[str, ...] = ()
    cause: Cause | None = None
    detected_plan: str = ""
    is_model_verified: bool = False


async def probe(
    upstream: Upstream, provider: Provider, dialect: Dialect, secret: Secret | None, time: float
) -> Finding:
    """Tries the key alone, at no cost. Never raises for what the provider does."""
    if not provider.key_test_path:
        return Finding(Outcome.INCONCLUSIVE)
    status, found = await _get(upstream, provider, provider.key_test_path, dialect, secret, time)
    if isinstance(found, Fault):
        return _finding(found, status, missing=Outcome.ENDPOINT_NOT_FOUND)
    answer = _object(found)
    if answer is None:
        return Finding(Outcome.INCONCLUSIVE, status)
    if _is_used_up(answer, provider.key_test_balance):
        return Finding(Outcome.NO_BILLING, status, cause=Cause.BALANCE)
    if provider.models_path == provider.key_test_path:
        return Finding(Outcome.PASSED, status, models=read_models(answer))
    models = await list_models(upstream, provider, dialect, secret, time)
    return Finding(Outcome.PASSED, status, models=models if not isinstance(models, Fault) else ())


async def list_models(
    upstream: Upstream, provider: Provider, dialect: Dialect, secret: Secret | None, time: float
) -> tuple[str, ...] | Fault:
    """The ids that the provider lists for a key, one too many to show that there are more."""
    _, found = await _get(upstream, provider, provider.models_path, dialect, secret, time)
    if isinstance(found, Fault):
        return found
    answer = _object(found)
    return read_models(answer) if answer is not None else violation("malformed", "The provider's list is no list.")


async def _get(
    upstream: Upstream, provider: Provider, path: str, dialect: Dialect, secret: Secret | None, time: float
) -> tuple[int | None, bytes | Fault]:
    request = UpstreamRequest(
        "GET",
        provider.base_url.join(path),
        (("accept", "application/json"), *provider.headers, *_wire_headers(dialect)),
        b"",
        provider.allowed_private_networks,
    )
    return await _send(upstream, request, provider, dialect, secret, time)


def _finding(fault: Fault, status: int | None, *, missing: Outcome) -> Finding:
    is_missing = fault.reason is Reason.UPSTREAM_MODEL_MISSING or (
        status == 404 and missing is Outcome.ENDPOINT_NOT_FOUND
    )
    named = _BY_CAUSE.get(fault.cause) if fault.cause is not None else None
    outcome = missing if is_missing else named or _OUTCOMES.get(fault.reason, Outcome.INCONCLUSIVE)
    detected = fault.metadata.get("detectedPlan", "")
    return Finding(outcome, status, fault.retry_after_seconds, cause=fault.cause, detected_plan=detected)


async def probe_model(
    upstream: Upstream, provider: Provider, endpoint: Endpoint, dialect: Dialect, secret: Secret | None, time: float
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
        ),
        encoded.body,
        provider.allowed_private_networks,
    )
    status, found = await _send(upstream, request, provider, dialect, secret, time)
    if isinstance(found, bytes):
        try:
            decoder = dialect.decoder(endpoint.quirks)
            decoder.feed(BodyFrame(found))
            decoder.close()
        except Fault as fault:
            found = classify(fault, provider.errors, {})
    if isinstance(found, Fault):
        return _finding(found, status, missing=Outcome.MODEL_NOT_FOUND)
    return Finding(Outcome.PASSED, status, is_model_verified=True)


async def _send(
    upstream: Upstream, plain: UpstreamRequest, provider: Provider, dialect: Dialect, secret: Secret | None, time: float
) -> tuple[int | None, bytes | Fault]:
    request = authorize(plain, provider.auth, secret, time)
    hide = Hiding(secret, derived_secret(request))
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
        return response.status, classify(dialect.decode_error(response.status, headers, body), provider.errors, headers)
    return response.status, body


def _wire_headers(dialect: Dialect) -> list[tuple[str, str]]:
    """What every request of a wire carries besides its body's type, such as Anthropic's version."""
    encoded = dialect.encode(Completion("any", "", _PROMPT), Quirks())
    return [(name, value) for name, value in encoded.headers.items() if name != "content-type"]


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def read_models(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids in a list of models: OpenAI's and Anthropic's `data` of `id`, Google's `models` of `name`."""
    for key, field in (("data", "id"), ("models", "name")):
        items = answer.get(key)
        if isinstance(items, list):
            named = (item[field] for item in items if isinstance(item, dict) and isinstance(item.get(field), str))
            return tuple(name.removeprefix("models/") for name in islice(named, MOST_MODELS + 1))
    return ()


def _is_used_up(answer: Mapping[str, Any], path: str) -> bool:
    """Whether the answer names a balance and nothing is left of it; without a number nothing is known."""
    value: Any = answer if path else None
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return False
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= 0
