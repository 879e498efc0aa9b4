"""Bedrock's errors made into faults.

What an error is stands in a header, in the body or in the type of a message of the stream, as the name of an
exception. Its words tell only what a name covers: a prompt that is too long and a model that is not there are both a
ValidationException, and no access to a model is an AccessDeniedException.
"""

from collections.abc import Mapping

from router_service.core.faults import Fault, Reason, UpstreamError
from router_service.dialects.base import Headers
from router_service.dialects.errors import fault_of, fault_of_status, read_error

_ERROR_TYPE = "x-amzn-errortype"

# By their names in lower case without "exception": a stream spells them in camel case, HTTP in pascal case.
_NAMES: Mapping[str, Reason] = {
    **dict.fromkeys(
        (
            *("accessdenied", "unrecognizedclient", "invalidsignature", "incompletesignature", "signaturedoesnotmatch"),
            *("missingauthenticationtoken", "expiredtoken", "invalidclienttokenid", "invalidtoken", "optinrequired"),
            "notauthorized",
        ),
        Reason.UPSTREAM_CREDENTIAL_REJECTED,
    ),
    **dict.fromkeys(
        ("throttling", "throttled", "toomanyrequests", "requestlimitexceeded", "servicequotaexceeded"),
        Reason.UPSTREAM_RATE_LIMITED,
    ),
    **dict.fromkeys(("resourcenotfound", "unknownoperation"), Reason.UPSTREAM_MODEL_MISSING),
    **dict.fromkeys(
        (
            *("internalserver", "internalfailure", "serviceunavailable", "modelnotready", "modelerror"),
            *("modelstreamerror", "modeltimeout", "requesttimeout"),
        ),
        Reason.UPSTREAM_UNAVAILABLE,
    ),
    "validation": Reason.UPSTREAM_REJECTED_REQUEST,
    "conflict": Reason.UPSTREAM_REJECTED_REQUEST,
}

_CONTEXT_WORDS = ("input tokens exceeded", "exceeds maximum length", "exceed context limit", "input is too long")
_MODEL_WORDS = (
    "model identifier is invalid",
    "on-demand throughput isn",
    "access to the model",
    "end of its life",
    "model id isn",
    "model is not supported",
)


def fault_of_response(status: int, headers: Headers, body: bytes) -> Fault:
    """The fault of an answer with an error status."""
    if status < 400:
        return fault_of_status(status, headers, body)
    error = read_error(body)
    spelled = headers.get(_ERROR_TYPE) or error.extra.get("__type") or error.code
    return _fault(status, headers, _short(spelled), error)


def fault_of_exception(name: str, data: bytes) -> Fault:
    """The fault of an exception inside a stream."""
    short = _short(name)
    return _fault(
        None, {}, short if _reason_of(short) else "", read_error(data)
    )  # a name that nobody knows may be a key


def _fault(status: int | None, headers: Headers, name: str, error: UpstreamError) -> Fault:
    reason = _reason_of(name)
    if reason in {Reason.UPSTREAM_REJECTED_REQUEST, Reason.UPSTREAM_CREDENTIAL_REJECTED} or status == 400:
        if any(phrase in error.words for phrase in _MODEL_WORDS):
            reason = Reason.UPSTREAM_MODEL_MISSING
        elif any(phrase in error.words for phrase in _CONTEXT_WORDS):
            reason = Reason.CONTEXT_TOO_LONG
        elif reason is Reason.UPSTREAM_REJECTED_REQUEST:
            reason = None  # the shared tables know other vendors' words for a long prompt
    shown = UpstreamError(name, "", error.words, error.extra)
    is_ours = status is None and name.lower() == "validationexception"
    return fault_of(400 if is_ours else status, headers, shown, reason)


def _reason_of(name: str) -> Reason | None:
    return _NAMES.get(name.lower().removesuffix("exception"))


def _short(spelled: object) -> str:
    """The name of an exception without its namespace: "a.b#Name" and "Name:http://…" are both a Name."""
    text = spelled if isinstance(spelled, str) else ""
    return text.partition(":")[0].rpartition("#")[2].strip()
