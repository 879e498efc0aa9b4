"""The vendors' own clients of Vertex AI and of Bedrock: what they send for a question, and what they read of an answer.

Nothing leaves the process: what they send is kept, and what they get is given.
"""

import json
from typing import Any

import httpx2
from anthropic import AnthropicVertex
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.session import get_session
from google.auth.credentials import Credentials
from google.genai import Client
from google.genai.types import HttpOptions

PROJECT, LOCATION = "p", "global"
GOOGLE_BASE = f"https://aiplatform.googleapis.com/v1/projects/{PROJECT}/locations/{LOCATION}/publishers/google"
ANTHROPIC_BASE = (
    f"https://aiplatform.googleapis.com/v1/projects/{PROJECT}/locations/{LOCATION}/publishers/anthropic/models"
)
BEDROCK_BASE = "https://bedrock-runtime.us-east-1.amazonaws.com"


class _Token(Credentials):
    """An access token that nobody has to fetch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the library has no types
        self.token = "token"

    def refresh(self, request: object) -> None:
        """It never ends."""
        del request


class Exchanged:
    """What a client sent, once it has."""

    def __init__(self, answer: object) -> None:
        self.url = ""
        self.body: dict[str, Any] = {}
        self._answer = answer

    def keep(self, request: httpx2.Request) -> httpx2.Response:
        """Takes a request and answers it."""
        self.url, self.body = str(request.url), json.loads(request.content)
        return httpx2.Response(200, json=self._answer)

    def keep_aws(self, request: Any, **_: Any) -> AWSResponse:
        """The same for botocore."""
        self.url, self.body = request.url, json.loads(request.body)
        headers: Any = {"content-type": "application/json"}
        return AWSResponse(request.url, 200, headers, _Raw(json.dumps(self._answer)))


class _Raw:
    def __init__(self, text: str) -> None:
        self._body = text.encode()

    def stream(self, *_: Any, **__: Any) -> Any:
        """What urllib3's response gives."""
        yield self._body

    def read(self, *_: Any) -> bytes:
        """All of it, once."""
        body, self._body = self._body, b""
        return body


def google(exchanged: Exchanged) -> Client:
    """Google's client on Vertex AI."""
    transport = httpx2.Client(transport=httpx2.MockTransport(exchanged.keep))
    options = HttpOptions(httpx_client=transport, api_version="v1")
    return Client(vertexai=True, project=PROJECT, location=LOCATION, credentials=_Token(), http_options=options)


def anthropic(exchanged: Exchanged) -> AnthropicVertex:
    """Anthropic's client on Vertex AI."""
    transport = httpx2.Client(transport=httpx2.MockTransport(exchanged.keep))
    return AnthropicVertex(project_id=PROJECT, region=LOCATION, access_token="token", http_client=transport)


def bedrock(exchanged: Exchanged) -> Any:
    """AWS's client of Bedrock."""
    session = get_session()
    session.set_credentials("AKIDEXAMPLE123456789", "secret")
    client = session.create_client("bedrock-runtime", "us-east-1", config=Config(retries={"max_attempts": 0}))
    answer: Any = exchanged.keep_aws  # what such a hook returns is taken for the answer
    client.meta.events.register("before-send.bedrock-runtime", answer)
    return client
