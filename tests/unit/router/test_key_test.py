"""The test of a key: what each provider's answer means, the model verified, the plan told apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from router_service.catalog.catalog import Endpoint, Provider
from router_service.catalog.loader import load_snapshot
from router_service.core.secret import Secret
from router_service.upstream.client import UpstreamRequest, UpstreamResponse
from router_service.upstream.key_test import try_key
from router_service.upstream.probe import Finding, Outcome

SNAPSHOT = load_snapshot("", source="f")
PROVIDERS = SNAPSHOT.providers
OK = json.dumps(
    {
        "id": "x",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "OK"}, "finish_reason": "stop"}],
    }
).encode()
LIST = b'{"object":"list","data":[{"id":"one"},{"id":"two"},{"no":"id"}]}'
Answer = tuple[int, bytes]


@dataclass
class Response:
    """An answer that has arrived whole."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    async def read_chunk(self) -> bytes:
        return b""

    async def read_all(self, max_bytes: int) -> bytes:
        return self.body

    def abort(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Fake:
    """A provider: answers by the URL's end, and remembers what it was asked."""

    answers: Mapping[str, Answer]
    asked: list[str] = field(default_factory=list)

    async def send(
        self, request: UpstreamRequest, *, connect_timeout_seconds: float, response_timeout_seconds: float
    ) -> UpstreamResponse:
        self.asked.append(request.url)
        status, body = next((answer for end, answer in self.answers.items() if request.url.endswith(end)), (404, b""))
        return Response(status, body)

    async def close(self) -> None: ...


async def find(
    provider: Provider, answers: Mapping[str, Answer], *, model: str = "", key: str = "sk-0123456789"
) -> tuple[Finding, Sequence[str]]:
    fake = Fake(answers)
    endpoint = Endpoint(provider.id, model, provider.quirks) if model else None
    siblings = [
        other
        for other in PROVIDERS.values()
        if provider.vendor and other.vendor == provider.vendor and other.plan != provider.plan
    ]
    finding = await try_key(fake, provider, endpoint, siblings, Secret(key), 0.0)
    return finding, fake.asked


def refusal(code: str = "", message: str = "no") -> bytes:
    return json.dumps({"error": {"code": code, "message": message}}).encode()


@pytest.mark.parametrize(
    ("provider", "answer", "outcome"),
    [
        ("openai", (200, LIST), Outcome.PASSED),
        ("openai", (401, refusal("invalid_api_key")), Outcome.INVALID_KEY),
        ("openai", (429, refusal("insufficient_quota")), Outcome.NO_BILLING),
        ("openai", (404, b"<html>"), Outcome.ENDPOINT_NOT_FOUND),
        ("openai", (429, refusal("rate_limit_exceeded")), Outcome.RATE_LIMITED),
        ("openai", (503, b""), Outcome.UNREACHABLE),
        ("openai", (200, b"<html>hello"), Outcome.INCONCLUSIVE),
        ("zai-coding", (429, refusal("1302")), Outcome.CONCURRENCY_EXCEEDED),
        ("zai-coding", (429, refusal("1113")), Outcome.WRONG_PLAN),
        ("zai", (429, refusal("1113")), Outcome.NO_BILLING),
        ("kimi-code", (402, b""), Outcome.NO_BILLING),
        ("perplexity", (200, LIST), Outcome.INCONCLUSIVE),
        (
            "gemini",
            (400, b'{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT"}}'),
            Outcome.INVALID_KEY,
        ),
    ],
)
async def test_an_answer_is_an_outcome(provider: str, answer: Answer, outcome: Outcome) -> None:
    finding, _ = await find(
        PROVIDERS[provider], {"": answer}, key="sk-kimi-0123456789" if "kimi" in provider else "sk-1234567"
    )
    assert finding.outcome is outcome


async def test_the_models_that_the_key_can_use_are_listed() -> None:
    finding, asked = await find(PROVIDERS["openai"], {"/models": (200, LIST)})
    assert finding.models == ("one", "two")
    assert asked == ["https://api.openai.com/v1/models"]
    google = b'{"models":[{"name":"models/gemini-3-flash"}]}'
    finding, _ = await find(PROVIDERS["gemini"], {"/models": (200, google)})
    assert finding.models == ("gemini-3-flash",)


async def test_a_balance_that_is_used_up_is_no_billing() -> None:
    provider = PROVIDERS["openrouter"]
    for left, outcome in (
        ("0", Outcome.NO_BILLING),
        ("-1.5", Outcome.NO_BILLING),
        ("4", Outcome.PASSED),
        ("null", Outcome.PASSED),
    ):
        answers = {"/key": (200, b'{"data":{"limit_remaining":%s}}' % left.encode()), "/models/user": (200, LIST)}
        finding, asked = await find(provider, answers)
        assert finding.outcome is outcome
        assert finding.models == (("one", "two") if outcome is Outcome.PASSED else ())
        assert asked[0] == "https://openrouter.ai/api/v1/key"
    finding, asked = await find(PROVIDERS["vercel"], {"/credits": (200, b'{"balance":"0.00"}')})
    assert finding.outcome is Outcome.NO_BILLING
    assert asked == ["https://ai-gateway.vercel.sh/v1/credits"]


async def test_the_model_is_verified_and_a_typing_mistake_is_found() -> None:
    answers = {"/models": (200, LIST), "/chat/completions": (200, OK)}
    finding, _ = await find(PROVIDERS["openai"], answers, model="one")
    assert (finding.outcome, finding.is_model_verified, finding.models) == (Outcome.PASSED, True, ("one", "two"))
    answers["/chat/completions"] = (404, refusal("model_not_found"))
    finding, _ = await find(PROVIDERS["openai"], answers, model="onee")
    assert finding.outcome is Outcome.MODEL_NOT_FOUND


async def test_where_no_request_is_free_the_model_decides() -> None:
    finding, asked = await find(PROVIDERS["perplexity"], {"/chat/completions": (200, OK)}, model="sonar")
    assert finding.outcome is Outcome.PASSED
    assert asked == ["https://api.perplexity.ai/chat/completions"]


async def test_a_key_of_the_other_plan_is_found_by_trial_at_the_same_origin() -> None:
    answers = {
        "/paas/v4/models": (200, LIST),
        "/api/paas/v4/chat/completions": (429, refusal("1113")),
        "/api/coding/paas/v4/chat/completions": (200, OK),
    }
    finding, asked = await find(PROVIDERS["zai"], answers, model="glm-5.1")
    assert (finding.outcome, finding.detected_plan) == (Outcome.WRONG_PLAN, "providers/zai-coding")
    assert all(url.startswith("https://api.z.ai/") for url in asked)
    answers["/api/coding/paas/v4/chat/completions"] = (429, refusal("1113"))
    finding, _ = await find(PROVIDERS["zai"], answers, model="glm-5.1")
    assert (finding.outcome, finding.detected_plan) == (Outcome.NO_BILLING, "")


async def test_a_key_is_never_carried_to_another_origin() -> None:
    answers = {"": (401, refusal("invalid_authentication_error"))}
    finding, asked = await find(PROVIDERS["moonshot"], answers, model="kimi-k2.6", key="sk-kimi-0123456789")
    assert (finding.outcome, finding.detected_plan) == (Outcome.WRONG_PLAN, "providers/kimi-code")
    assert all(url.startswith("https://api.moonshot.ai/") for url in asked)
    finding, asked = await find(PROVIDERS["kimi-code"], answers, model="kimi-k2.6", key="sk-0123456789")
    assert (finding.outcome, finding.detected_plan) == (Outcome.WRONG_PLAN, "providers/moonshot")
    assert all(url.startswith("https://api.kimi.com/") for url in asked)


async def test_a_provider_without_plans_has_none_to_confuse() -> None:
    finding, _ = await find(replace(PROVIDERS["openai"], vendor="", plan=None), {"": (401, b"")}, model="one")
    assert (finding.outcome, finding.detected_plan) == (Outcome.INVALID_KEY, "")
