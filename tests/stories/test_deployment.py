"""The story of docs/stories/deployment.md: shared keys, own keys and their switch, models and overrides."""

from pathlib import Path

import pytest

from tests.stories.harness import Story, telling

SHARED_KEY, PROXY_KEY = "sk-shared-anthropic-1111", "sk-shared-proxy-2222"
OPENAI_KEY, ANTHROPIC_KEY = "sk-eve-openai-3333", "sk-eve-anthropic-4444"


def named_by(text: str) -> tuple[str, str]:
    """The model that would answer, and which layer says so."""
    number, model, *layer = text.splitlines()[2].split()
    assert number == "1"
    return model, " ".join(layer[:2])


async def play_own_keys(story: Story) -> None:
    """A developer's own keys, then the deployment's switch."""
    providers = story.providers
    _, none, shared, _, _, status, own, other, deleted, back = await story.play("Own keys of developers")
    assert "no key" in none.text
    assert [line.split()[:4] for line in status.text.splitlines()[2:5]] == [
        ["agents", "anthropic", "key", "saved"],
        ["agents", "openai", "key", "saved"],
        ["agents", "proxy", "using", "shared"],
    ]
    assert [("SHARED_KEY" in one.text, "USER_KEY" in one.text) for one in (shared, own, other, back)] == [
        (True, False),
        (False, True),
        (True, False),
        (True, False),
    ]
    assert deleted.code == 0
    assert [one.key for one in providers.asked] == [SHARED_KEY, ANTHROPIC_KEY, PROXY_KEY, SHARED_KEY]
    assert providers.asked[2].body["temperature"] == 0.2  # the model's own defaults
    assert providers.asked[2].body["top_p"] == 0.9

    _, _, _, status, added, refused, _, again = await story.play("The switch")
    assert "no key (a saved own key is ignored)" in status.text
    assert added.code == 4
    assert "BYOK_DISABLED" in added.text
    assert "byok disabled" in refused.text
    assert "paid by USER_KEY" in again.text
    assert [one.key for one in providers.asked[4:]] == [OPENAI_KEY]


@pytest.mark.timeout(900)  # dozens of commands, each a process: half a minute where nothing else runs
async def test_a_deployment_with_models_overrides_and_a_switch(tmp_path: Path, keyswitch_path: Path) -> None:
    async with telling("deployment", tmp_path, ["anthropic", "openai", "proxy"], keyswitch_path) as story:
        _, _, empty, _, _, listed, options = await story.play("Providers and models")
        assert "ask the operator for a key" in empty.text
        models = [line.split()[0] for line in listed.text.splitlines()[2:5]]
        assert models == ["anthropic/claude-sonnet-4.6", "anthropic/claude-opus-4.6", "internal/code-large"]
        assert "anthropic/claude-sonnet-4.6 *" in listed.text
        assert "Compression Threshold" in options.text
        await play_own_keys(story)

        _, _, _, root, _, early, pinned, _, late, personal, title, refused, _, general = await story.play("Overrides")
        assert (root.code, early.code, late.code, refused.code) == (2, 3, 0, 2)
        assert named_by(pinned.text) == ("internal/code-large", "administrator override")
        assert named_by(personal.text) == ("anthropic/claude-opus-4.6", "personal override")
        assert named_by(title.text) == ("internal/code-large", "administrator override")
        assert named_by(general.text)[0] == "anthropic/claude-sonnet-4.6"
        assert story.providers.last.body["model"] == "claude-opus-4-6"

        off, _, cleared, explained, refused = await story.play("A model is switched off")
        assert (off.code, cleared.code) == (0, 0)
        assert named_by(explained.text) == ("anthropic/claude-sonnet-4.6", "deployment default")
        assert "passed over: internal/code-large (administrator override): model disabled" in explained.text
        assert refused.code == 4
        assert "'code-large'" not in refused.text
