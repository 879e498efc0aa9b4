"""All dialects, listed by hand: a new wire is one module and one line here."""

from collections.abc import Mapping

from router_service.dialects.anthropic_count import AnthropicTokenCounter
from router_service.dialects.anthropic_messages import AnthropicMessages
from router_service.dialects.base import Dialect, Embedder, TokenCounter
from router_service.dialects.bedrock_converse import BedrockConverse
from router_service.dialects.bedrock_count import BedrockTokenCounter
from router_service.dialects.bedrock_embeddings import BedrockEmbeddings
from router_service.dialects.gemini import Gemini
from router_service.dialects.gemini_count import GeminiTokenCounter
from router_service.dialects.gemini_embeddings import GeminiEmbeddings
from router_service.dialects.ollama_chat import OllamaChat
from router_service.dialects.openai_chat import OpenAIChat
from router_service.dialects.openai_embeddings import OpenAIEmbeddings
from router_service.dialects.openai_responses import OpenAIResponses
from router_service.dialects.openai_responses_count import ResponsesTokenCounter

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (OpenAIChat(), OpenAIResponses(), AnthropicMessages(), Gemini(), BedrockConverse(), OllamaChat())
}

EMBEDDERS: Mapping[str, Embedder] = {
    "openai_chat": OpenAIEmbeddings(),
    "openai_responses": OpenAIEmbeddings(),
    "gemini": GeminiEmbeddings(),
    "bedrock_converse": BedrockEmbeddings(),
}
"""By dialect: the wires that have embeddings."""

COUNTERS: Mapping[str, TokenCounter] = {
    "anthropic_messages": AnthropicTokenCounter(),
    "gemini": GeminiTokenCounter(),
    "openai_responses": ResponsesTokenCounter(),
    "bedrock_converse": BedrockTokenCounter(),
}
"""By dialect: the wires that can count tokens. Whether a provider has the call is a quirk."""


def find(name: str) -> Dialect | None:
    """The dialect of a name; None where there is none."""
    return DIALECTS.get(name)
