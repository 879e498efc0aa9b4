"""The story of docs/stories/payers.md: own key, credits with a markup, a free pool; flipped, and low before it hits."""

from fractions import Fraction
from pathlib import Path

import pytest

from tests.stories.harness import Story, telling

PROVIDERS = ["anthropic", "openrouter"]
MARKUP = Fraction(120, 100)
SONNET = ("anthropic/claude-sonnet-4.6", "anthropic")
PLATFORM_KEY, FREE_KEY, OWN_KEY = "sk-platform-anthropic-1111", "sk-platform-openrouter-2222", "sk-ada-anthropic-3333"
FREE_MODELS = ["minimax/minimax-m2.7", "z-ai/glm-5", "moonshotai/kimi-k2.5"]


async def ask_the_pool(story: Story) -> None:
    """Plays the answers, the draw of the free pool given: a third of the calls begin with each model."""
    draws = [0.1, 0.5, 0.9]
    before = len(story.providers.asked)
    async for shown in story.steps("Which model ran, and whose account paid"):
        if "-a landing" in shown.command:
            assert "paid by FREE" in shown.text
            assert "charged $0.00 " in shown.text
            draws.append(draws.pop(0))
        story.stack.spread = draws[0]
    asked = story.providers.asked[before:]
    assert [(one.key, one.body["model"]) for one in asked] == [
        (OWN_KEY, "claude-sonnet-4-6"),
        (PLATFORM_KEY, "claude-sonnet-4-6"),
        *((FREE_KEY, model) for model in FREE_MODELS),
    ]


@pytest.mark.timeout(900)  # dozens of commands, each a process: half a minute where nothing else runs
async def test_three_payers_flipped_per_application(tmp_path: Path, keyswitch_path: Path) -> None:
    async with telling("payers", tmp_path, PROVIDERS, keyswitch_path) as story:
        providers = story.providers
        await story.play("The platform's side")
        await story.play("Three applications")
        _, _, own, platform, _ = await story.play("What it would cost")
        assert "USER_KEY" in own.text
        assert "CREDITS" in platform.text
        assert providers.asked == []  # an estimate sends nothing

        await ask_the_pool(story)
        charged = story.list_price_nanos(*SONNET) * MARKUP
        assert await story.balance_nanos("studio") == 10**9 - charged

        flipped = next(shown for shown in await story.play("Flipped") if " chat " in shown.command)
        assert "paid by USER_KEY" in flipped.text
        assert providers.last.key == OWN_KEY
        assert await story.balance_nanos("studio") == 10**9 - charged

        providers.usage = (20_000, 15_000)
        low, shown, second, last, refused, free, _, _, _, again = await story.play("Low before it hits")
        assert "of credits left: below the $0.75 that count as low" in low.text
        assert "LOW: below $0.75" in shown.text
        assert (low.code, second.code, last.code) == (0, 0, 0)
        assert "are refused until the operator adds some" in last.text
        assert refused.code == 4
        assert "CREDIT_EXHAUSTED" in refused.text
        assert "paid by FREE" in free.text
        assert "count as low" not in again.text
        charged += 4 * story.list_price_nanos(*SONNET) * MARKUP
        assert await story.balance_nanos("studio") == 11 * 10**9 - charged
        assert [one.key for one in providers.asked[-5:]] == [*[PLATFORM_KEY] * 3, FREE_KEY, PLATFORM_KEY]

        by_payer, by_application, _ = (await story.play("The month"))[1:]
        assert [line.split()[0] for line in by_payer.text.splitlines()[2:]] == ["CREDITS", "FREE", "USER_KEY"]
        assert "█" * 40 in by_application.text
