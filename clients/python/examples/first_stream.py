"""Streams one answer and says who paid: python clients/python/examples/first_stream.py."""

import asyncio
import os

from keyswitch_client import AsyncClient, KeyswitchError, system, user


async def main() -> None:
    """Reads the address, the CA file and the token from the environment."""
    client = AsyncClient(
        os.environ.get("KEYSWITCH_ROUTER", "127.0.0.1:8760"),
        os.environ["KEYSWITCH_TOKEN"],
        ca_path=os.environ.get("KEYSWITCH_CA", ".keyswitch/ca.pem"),
    )
    async with client:
        try:
            messages = [system("Be brief."), user("Hello")]
            async with client.stream(messages, model="practice/echo", timeout_seconds=60) as stream:
                async for piece in stream.text():
                    print(piece, end="", flush=True)
                answer = await stream.fold()
        except KeyswitchError as error:
            print(f"{error.reason or error.code.name}: {error.message}")
            raise SystemExit(1) from None
    usage = answer.receipt.usage
    print(f"\n{answer.resolution.model}, {usage.input_tokens} tokens in, {usage.output_tokens} out")


if __name__ == "__main__":
    asyncio.run(main())
