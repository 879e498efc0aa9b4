"""The story of docs/stories/executors.md: coding agents of an organization, on their own keys or on credits."""

from fractions import Fraction
from pathlib import Path

import pytest

from tests.stories.harness import telling

PROVIDERS = ["anthropic", "openai", "gemini", "openrouter"]
MARKUP = Fraction(110, 100)
PLATFORM_KEY = "sk-platform-anthropic-1111"
OWN_KEY = "sk-acme-anthropic-5555"


@pytest.mark.timeout(900)  # dozens of commands, each a process: half a minute where nothing else runs
async def test_an_organization_with_executors(tmp_path: Path, keyswitch_path: Path) -> None:
    async with telling("executors", tmp_path, PROVIDERS, keyswitch_path) as story:
        providers = story.providers
        assert [shown.code for shown in await story.play("The platform's keys")] == [0] * 7
        assert [one.key for one in providers.tests if one.provider == "anthropic"] == [PLATFORM_KEY]
        await story.play("The agents")

        listed, *answers, refused, _ = (await story.play("Without keys, credits pay"))[1:]
        assert listed.text.count("CREDITS") == 9
        asked = [(one.provider, one.body.get("model"), one.key[-4:]) for one in providers.asked]
        assert asked == [
            ("anthropic", "claude-sonnet-4-6", "1111"),
            ("openai", "gpt-5.4", "2222"),
            ("gemini", None, "3333"),
            ("gemini", None, "3333"),
            ("openrouter", "z-ai/glm-5", "4444"),
        ]
        assert all("/models/gemini-3.1-pro-preview:" in one.path for one in providers.asked[2:4])
        assert all("paid by CREDITS" in shown.text and "(markup 10 %)" in shown.text for shown in answers)
        assert refused.code == 4
        assert "MODEL_NOT_ALLOWED " in refused.text
        used = [
            ("anthropic/claude-sonnet-4.6", "anthropic"),
            ("openai/gpt-5.4", "openai"),
            *[("google/gemini-3.1-pro", "gemini")] * 2,
            ("z-ai/glm-5", "openrouter"),
        ]
        spent = sum(story.list_price_nanos(*one) for one in used) * MARKUP
        assert await story.balance_nanos("acme") == 20 * 10**9 - spent

        refused, _, added, bound = await story.play("A key for claude")
        assert (refused.code, added.code, bound.code) == (3, 0, 0)
        assert "CALLER_NOT_ALLOWED" in refused.text

        _, status, tested, answered, refused, models, other, _ = await story.play("What members see")
        assert "key saved" in status.text
        assert tested.code == 0
        assert providers.asked[-2].key == OWN_KEY
        assert "paid by ORGANIZATION_KEY" in answered.text
        assert "charged $0.00 " in answered.text
        assert "MODEL_NOT_ALLOWED_WITH_OWN_KEY" in refused.text
        assert "openai" not in models.text
        assert "paid by CREDITS" in other.text  # opencode takes no own keys
        assert providers.last.key == PLATFORM_KEY
        spent += story.list_price_nanos(*used[0]) * MARKUP
        assert await story.balance_nanos("acme") == 20 * 10**9 - spent

        refused, _, deleted, _, answered, other, status, _ = await story.play("The key is deleted")
        assert (refused.code, deleted.code) == (3, 0)
        assert all("paid by CREDITS" in shown.text for shown in (answered, other))
        assert [one.key[-4:] for one in providers.asked[-2:]] == ["1111", "2222"]
        assert "key saved" not in status.text
