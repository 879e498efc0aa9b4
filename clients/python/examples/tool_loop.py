"""Runs the tools that a model asks for until it answers: python clients/python/examples/tool_loop.py."""

import json
import os

from keyswitch_client import Client, text_of, tool, tool_calls_of, tool_result, user

WEATHER = tool(
    "get_weather",
    "The weather at a place",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def get_weather(city: str) -> str:
    """Made up, as everything here."""
    return f"sunny in {city}"


def main() -> None:
    """Reads the address, the CA file and the token from the environment."""
    with Client(
        os.environ.get("KEYSWITCH_ROUTER", "127.0.0.1:8760"),
        os.environ["KEYSWITCH_TOKEN"],
        ca_path=os.environ.get("KEYSWITCH_CA", ".keyswitch/ca.pem"),
    ) as client:
        messages = [user("Oslo")]
        while True:
            answer = client.complete(messages, model="practice/tools", tools=[WEATHER])
            calls = tool_calls_of(answer.message)
            if not calls:
                print(text_of(answer.message))
                return
            # The answer goes back as it came: it may hold state that the provider wants again.
            messages.append(answer.message)
            for call in calls:
                print(f"{call.name}({call.arguments_json})")
                messages.append(tool_result(call, get_weather(**json.loads(call.arguments_json))))


if __name__ == "__main__":
    main()
