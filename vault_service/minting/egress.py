"""The only way out of this service: a POST to a token endpoint, in bounded time and size, with no redirect or proxy."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from vault_service.core.faults import Fault, Reason
from vault_service.minting.endpoints import TokenEndpoints

MAX_ANSWER_BYTES = 256 * 1024
TIMEOUT_SECONDS = 10.0
_CODES = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
        *("invalid_scope", "invalid_resource", "invalid_target", "access_denied", "interaction_required"),
        *("consent_required", "login_required", "admin_policy_enforced", "deleted_client", "disabled_client"),
        *("server_error", "temporarily_unavailable"),
    }
)
"""What RFC 6749 (5.2, 4.1.2.1), Entra and Google call their refusals. Other words stay here: one may be the secret."""
_PASSING_CODES = frozenset({"server_error", "temporarily_unavailable", "Throttling", "RequestLimitExceeded"})
"""What is over soon, whatever the status: STS says with 400 that it is asked too often."""


class MintRefused(Exception):
    """The endpoint refused; `cause` is its own error code where that is a known one."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class MintUnavailable(Exception):
    """The endpoint could not be reached, failed, or answered nonsense; the same may work later."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def read_oauth_code(answer: bytes) -> str:
    """Gives the error code of an answer (RFC 6749, 5.2) where it is a known one, else nothing."""
    code = (_read_object(answer) or {}).get("error")
    return code if isinstance(code, str) and code in _CODES else ""


_NOT_ALLOWED = "endpoint_not_allowed"


class Egress:
    """A client of token endpoints. Its errors hold no text of an answer: answers hold secrets."""

    def __init__(self, endpoints: TokenEndpoints, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.endpoints = endpoints
        self._client = httpx.AsyncClient(
            trust_env=False, follow_redirects=False, timeout=TIMEOUT_SECONDS, transport=transport
        )

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        read_code: Callable[[bytes], str] = read_oauth_code,
    ) -> bytes:
        """Gives the body of a 200; `read_code` finds what a refusal says. Raises MintRefused and MintUnavailable."""
        if not self.endpoints.allows(url):
            raise MintRefused(_NOT_ALLOWED)
        try:
            async with self._client.stream("POST", url, content=body, headers=dict(headers)) as response:
                answer = b""
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise MintUnavailable("answer_too_long")
                status = response.status_code
        except httpx.HTTPError:
            status = 0
            answer = b""
        if status == 0:  # raised out here, so that the error has no context: httpx's own ones hold the request
            raise MintUnavailable("unreachable")
        if status == 200:
            return answer
        if not 400 <= status < 500 or status in (408, 425, 429):
            raise MintUnavailable(f"status_{status}")
        code = read_code(answer)
        if code in _PASSING_CODES:
            raise MintUnavailable(code)
        raise MintRefused(code or f"status_{status}")

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Any:
        """Posts a form and gives the JSON object of the answer, as OAuth's endpoints do (RFC 6749, 5)."""
        body = str(httpx.QueryParams(dict(form))).encode("ascii")
        kind = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        answer = await self.post(url, body, {**kind, **(headers or {})})
        found = _read_object(answer)
        if found is None:
            raise MintUnavailable("malformed")
        return found

    async def close(self) -> None:
        """Lets go of connections."""
        await self._client.aclose()


def fault_of(error: MintRefused | MintUnavailable, name: str) -> Fault:
    """Gives the fault about the version called `name`."""
    reason = Reason.MINT_REFUSED if isinstance(error, MintRefused) else Reason.MINT_UNAVAILABLE
    return Fault(reason, {"name": name, "cause": error.cause})


def is_word_about_key(fault: Fault) -> bool:
    """Whether an endpoint has refused the key itself: not this deployment the endpoint, and no other fault."""
    return fault.reason is Reason.MINT_REFUSED and fault.metadata["cause"] != _NOT_ALLOWED


def _read_object(answer: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
