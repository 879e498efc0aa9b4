"""The story of docs/stories/reviewer.md: a main model on a plan with one slot, and a fallback with its own key."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.scripted_upstream import Pause, Reached
from tests.service.router_answers import Json
from tests.stories.harness import Story, telling
from tests.stories.providers import Asked, Providers, answer_to
from tests.stories.shell import Shown

PROVIDERS = ["zai", "zai-coding", "anthropic", "openrouter"]
DEVELOPER_KEY, MAIN_KEY = "sk-zai-developer-1111", "sk-zai-coding-2222"
FALLBACK_KEY, ROUTER_KEY = "sk-acme-anthropic-3333", "sk-acme-openrouter-4444"
WRONG_PLAN = {"error": {"code": "1113", "message": "Insufficient balance or no resource package. Please recharge."}}


async def play_bodies(story: Story, section: str) -> list[tuple[Shown, Json]]:
    """Plays a section, and gives with each command the body of the call that it led to."""
    found: list[tuple[Shown, Json]] = []
    async for shown in story.steps(section):
        asked = story.providers.asked
        found.append((shown, asked[-1].body if asked and " chat " in shown.command else {}))
    return found


def thinking(body: Json) -> dict[str, Any]:
    """What a body says about reasoning, in whatever words."""
    return {name: value for name, value in body.items() if name in {"thinking", "output_config", "reasoning"}}


async def play_burst(story: Story, providers: Providers) -> Sequence[Shown]:
    """The first call is under way until the second one was answered elsewhere."""
    free, count = asyncio.Event(), len(providers.asked)
    other = Asked("anthropic", "/v1/messages", FALLBACK_KEY, {"model": "claude-sonnet-4-6", "stream": True})
    providers.scripts["zai-coding"].append([Pause(free), *answer_to(providers.last)])
    providers.scripts["anthropic"].append([*answer_to(other), Reached(free)])
    found = []
    async for shown in story.steps("A burst"):
        if shown.command.endswith("&"):
            await providers.wait_for(count + 1)
        found.append(shown)
    assert [(one.provider, one.key) for one in providers.asked[count:]] == [
        ("zai-coding", MAIN_KEY),
        ("anthropic", FALLBACK_KEY),
    ]
    return found


@pytest.mark.timeout(900)  # dozens of commands, each a process: half a minute where nothing else runs
async def test_a_reviewer_with_main_and_fallback(tmp_path: Path, keyswitch_path: Path) -> None:
    async with telling("reviewer", tmp_path, PROVIDERS, keyswitch_path) as story:
        providers = story.providers
        providers.rejected[DEVELOPER_KEY] = (429, WRONG_PLAN)
        _, _, empty, plans, _ = await story.play("Pick a plan")
        assert "no model yet" in empty.text
        assert "1, at most 30" in plans.text
        assert "may get your account blocked" in plans.text

        wrong, pasted, added, typo, tested, activated, *_, explained = await story.play("Paste the keys")
        assert [one.code for one in (wrong, pasted, added, typo, tested, activated)] == [4, 2, 0, 4, 0, 0]
        assert "wrong plan" in wrong.text
        assert "quotes" in pasted.text
        assert "requests at once: 1" in added.text
        assert "Did you mean 'claude-sonnet-4.6'" in typo.text
        assert [line.split()[:1] for line in explained.text.splitlines()[2:4]] == [["1"], ["2"]]

        ((answered, body),) = await play_bodies(story, "A review")
        assert (providers.last.provider, providers.last.key) == ("zai-coding", MAIN_KEY)
        assert (body["temperature"], body["max_tokens"], body["thinking"]) == (1, 16000, {"type": "enabled"})
        assert "charged $0.00 " in answered.text

        _, second, receipt, first, _ = await play_burst(story, providers)
        assert "passed over: z-ai/glm-5.1 at zai-coding for ORGANIZATION_KEY, slots taken" in second.text
        assert "slots taken" in receipt.text
        assert providers.last.body["max_tokens"] == 8000  # the fallback route's own settings
        assert thinking(providers.last.body)["output_config"] == {"effort": "low"}
        assert "zai-coding" in first.text

        high, low, off, xhigh, _ = await play_bodies(story, "How much to think")
        assert thinking(high[1]) == {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
        assert thinking(low[1]) == {"thinking": {"type": "enabled"}}
        assert "adjusted" in low[0].text
        assert thinking(off[1]) == {"thinking": {"type": "disabled"}}
        assert thinking(xhigh[1])["output_config"] == {"effort": "high"}
        assert "no effort xhigh; high is sent" in xhigh[0].text

        replaced, named, broken = await play_bodies(story, "Options in the provider's own words")
        assert thinking(replaced[1]) == {"thinking": {"type": "enabled", "budget_tokens": 4096}}
        assert "replaced" in replaced[0].text
        assert named[1]["service_tier"] == "auto"
        assert "user" not in named[1]
        assert broken[0].code == 2
        assert "line 1, column 33" in broken[0].text

        _, pinned, with_effort, joined = await play_bodies(story, "Pinning upstreams inside OpenRouter")
        assert providers.last.key == ROUTER_KEY
        assert pinned[1]["provider"] == {"order": ["moonshot", "together"], "allow_fallbacks": False}
        assert with_effort[1]["provider"] == {"order": ["moonshot"]}
        assert with_effort[1]["reasoning"] == {"effort": "medium"}
        more = {"ignore": ["deepinfra"], "data_collection": "deny", "require_parameters": True}
        assert joined[1]["provider"] == {"order": ["moonshot"], **more}
        assert "reasoning" not in joined[1]

        shown, refused, changed, _, after = await story.play("Fixed by the file")
        assert refused.code == 4
        assert "RESOURCE_FIXED" in refused.text
        assert "stored over file" in changed.text
        assert after.text == shown.text
