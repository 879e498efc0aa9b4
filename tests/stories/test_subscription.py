"""The story of docs/stories/subscription.md: a grant that is used up on 429, credits meanwhile, and its return."""

import dataclasses
import json
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.oauth_server import OauthServer, running_oauth_server
from tests.fakes.scripted_upstream import respond
from tests.service.router_answers import Json
from tests.service.test_router_grants import CLIENT
from tests.stories.harness import Story, telling
from tests.stories.providers import Asked, answer_to

PLATFORM_KEY = "sk-platform-openrouter-1111"
MODEL = "anthropic/claude-sonnet-4.5"
MARKUP = Fraction(10550, 10000)
USED_UP = b'{"type":"error","error":{"type":"rate_limit_error","message":"usage limit reached"}}'
RESET_SECONDS = 1800


@pytest.fixture(scope="module")
def oauth() -> Iterator[OauthServer]:
    with running_oauth_server(clients=[CLIENT]) as server:
        yield server


def openrouter_says(story: Story, count: int) -> None:
    """Answers that say what they cost, as OpenRouter's do."""
    asked = Asked("openrouter", "/chat/completions", PLATFORM_KEY, {"model": MODEL, "stream": True})
    said: Json = {"cost": 0.0079, "cost_details": {"upstream_inference_cost": 0.0075}}
    story.providers.scripts["openrouter"].extend(answer_to(asked, **said) for _ in range(count))


def turn_clocks(story: Story) -> list[float]:
    """Makes the router's clocks run so many seconds ahead as the list says."""
    ahead = [0.0]
    engine = story.stack.router.engine
    limits: Any = story.stack.router.limits
    engine.edges = dataclasses.replace(engine.edges, clock=lambda: time.time() + ahead[0])
    engine.edges.admission._clock = engine.edges.clock
    limits._clock = lambda: time.monotonic() + ahead[0]
    return ahead


@pytest.mark.timeout(900)  # dozens of commands, each a process: half a minute where nothing else runs
async def test_a_subscription_falls_back_and_returns(tmp_path: Path, keyswitch_path: Path, oauth: OauthServer) -> None:
    changes = {"vault_changes": {"token_endpoints": frozenset({oauth.url})}}
    async with telling("subscription", tmp_path, ["anthropic", "openrouter"], keyswitch_path, **changes) as story:
        ahead = turn_clocks(story)
        providers = story.providers
        grant: Json = {
            "refresh_token": oauth.grant("subscription"),
            "token_endpoint": f"{oauth.url}/token",
            "client_id": "subscription",
        }
        (story.folder / "grant.json").write_text(json.dumps({"oauth": grant}))
        await story.play("The two ways")

        (answered,) = await story.play("On the subscription")
        assert "paid by USER_KEY" in answered.text
        assert (providers.last.provider, providers.last.body["model"]) == ("anthropic", "claude-sonnet-4-5")
        token = providers.last.key
        assert token not in (grant["refresh_token"], "")

        dated, vendor, typo, *_, chosen = await story.play("Names of the model")
        names = [one.body["model"] for one in providers.asked[1:3]]
        assert (dated.code, vendor.code, typo.code) == (0, 0, 4)
        assert names == ["claude-sonnet-4-5"] * 2
        assert "paid by CREDITS" in chosen.text
        assert (providers.last.provider, providers.last.key) == ("openrouter", PLATFORM_KEY)
        assert providers.last.body["provider"] == {"order": ["Anthropic", "Google"]}

        providers.scripts["anthropic"].append(respond(USED_UP, status=429, retry_after=str(RESET_SECONDS)))
        openrouter_says(story, 2)
        before = len(providers.asked)
        failed_over, explained, again = await story.play("Used up")
        assert all("paid by CREDITS" in one.text for one in (failed_over, again))
        assert "cooling down" in explained.text
        assert [one.provider for one in providers.asked[before:]] == ["anthropic", "openrouter", "openrouter"]
        assert providers.last.body["provider"]["order"] == ["Google", "Anthropic", "Amazon Bedrock"]
        await story.play("What it cost")
        spent = 3 * story.list_price_nanos(MODEL, "openrouter") * MARKUP
        assert await story.balance_nanos("acme") == 5 * 10**9 - spent

        ahead[0] += RESET_SECONDS + 1
        back, *_ = await story.play("Back by itself")
        assert "paid by USER_KEY" in back.text
        assert (providers.last.provider, providers.last.key) == ("anthropic", token)
        assert await story.balance_nanos("acme") == 5 * 10**9 - spent
