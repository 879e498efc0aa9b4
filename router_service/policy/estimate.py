"""How many tokens a prompt has, where the provider cannot count: an estimate of its words, and nothing else."""

from router_service.core.content import Media, Part, ProviderBlock, Reasoning, Text, ToolCall, ToolResult
from router_service.core.faults import Fault, invalid
from router_service.core.request import Completion, FunctionTool, JsonSchemaFormat

BYTES_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
"""What the wires put around a message: its role and its separators."""


def estimate_prompt_tokens(completion: Completion) -> int:
    """The estimate. Raises Fault for what only the provider can count."""
    words = TOKENS_PER_MESSAGE * BYTES_PER_TOKEN * len(completion.messages)
    for number, message in enumerate(completion.messages):
        for place, part in enumerate(message.parts):
            words += _size(part, f"call.spec.messages[{number}].parts[{place}]")
    for index, tool in enumerate(completion.tools):
        if not isinstance(tool, FunctionTool):
            raise _uncountable(f"call.spec.tools[{index}].provider_tool")
        words += _bytes(tool.name) + _bytes(tool.description) + _bytes(tool.parameters_json)
    if isinstance(completion.response_format, JsonSchemaFormat):
        words += _bytes(completion.response_format.schema_json)
    return -(-words // BYTES_PER_TOKEN)


def _size(part: Part, field: str) -> int:
    match part.kind:
        case Text(text=text) | Reasoning(text=text):
            return _bytes(text)
        case ToolCall(name=name, arguments_json=arguments):
            return _bytes(name) + _bytes(arguments)
        case ToolResult(content=content):
            if not all(isinstance(item, Text) for item in content):
                raise _uncountable(f"{field}.tool_result")
            return sum(_bytes(item.text) for item in content if isinstance(item, Text))
        case Media() | ProviderBlock():
            raise _uncountable(field)


def _bytes(text: str) -> int:
    return len(text.encode())


def _uncountable(field: str) -> Fault:
    message = (
        "This provider cannot count tokens, and the router estimates words only, not media, provider blocks and "
        "provider tools. Leave it out, or name a model of a provider that counts."
    )
    return invalid(field, message)
