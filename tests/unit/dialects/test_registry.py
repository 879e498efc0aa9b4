"""The list of dialects."""

from router_service.dialects.registry import DIALECTS, find


def test_dialects_are_found_by_their_names() -> None:
    assert set(DIALECTS) == {
        "openai_chat",
        "openai_responses",
        "anthropic_messages",
        "gemini",
        "bedrock_converse",
        "ollama_chat",
    }
    for name, dialect in DIALECTS.items():
        assert dialect.name == name
        assert find(name) is dialect
    assert find("telegraph") is None
