"""Calls of any method of the contract, each with everything that comes back kept for the search."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import keyswitch.router.v1
import keyswitch.vault.v1
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from keyswitch.vault.v1 import token_service_pb2

from tests.security.canary import Scanner

TIMEOUT_SECONDS = 20.0
Metadata = Sequence[tuple[str, str | bytes]]

# Where a caller's text is kept or carried on as it is, because that is what the field is for. A key that somebody
# writes there is in the wrong place by the writer's own hand; see "Out of scope" in docs/security/threat-model.md.
FREE_TEXT = frozenset(
    {
        "keyswitch.router.v1.AddCreditsRequest.note",
        "keyswitch.router.v1.Application.display_name",
        "keyswitch.router.v1.EmbedRequest.caller_labels",
        "keyswitch.router.v1.EmbeddingInput.text",
        "keyswitch.router.v1.ModelEntry.display_name",
        "keyswitch.router.v1.Organization.display_name",
        "keyswitch.router.v1.Provider.display_name",
        "keyswitch.router.v1.CompletionCall.caller_labels",
        "keyswitch.vault.v1.Credential.display_name",
        "keyswitch.vault.v1.Revocation.note",
        "keyswitch.vault.v1.RevokeTokenRequest.note",
        "keyswitch.vault.v1.Token.display_name",
    }
)
# The words of the conversation itself, which go to the provider.
CONTENT_FILE = "keyswitch/router/v1/content.proto"


def all_methods() -> Mapping[str, MethodDescriptor]:
    """Every method of the contract by "package.Service/Method", whether or not a service serves it."""
    found: dict[str, MethodDescriptor] = {}
    for package in (keyswitch.router.v1, keyswitch.vault.v1):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("_pb2"):
                file = importlib.import_module(f"{package.__name__}.{module.name}").DESCRIPTOR
                for service in file.services_by_name.values():
                    found |= {f"{service.full_name}/{method.name}": method for method in service.methods}
    return found


METHODS = all_methods()


def find_method(name: str) -> str:
    """The full name of a method that is named without its package; no two services have one of the same name."""
    (found,) = (full for full in METHODS if full.endswith(f"/{name}"))
    return found


def is_redacted(field_descriptor: FieldDescriptor) -> bool:
    """Whether the contract marks a field as secret."""
    options = field_descriptor.GetOptions()
    assert isinstance(options, descriptor_pb2.FieldOptions)
    return options.debug_redact


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `answers` are the messages that came before the end, `details` those of the status."""

    code: grpc.StatusCode
    answers: tuple[Message, ...] = ()
    reason: str = ""
    message: str = ""
    details: bytes = b""

    @property
    def is_ok(self) -> bool:
        """Whether it was answered."""
        return self.code is grpc.StatusCode.OK


@dataclass(slots=True)
class Calls:
    """The channels to one deployment. Everything that comes back goes through the scanner."""

    scanner: Scanner
    router: grpc.aio.Channel
    management: grpc.aio.Channel
    lease: grpc.aio.Channel
    succeeded: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def channel_of(self, method: MethodDescriptor) -> grpc.aio.Channel:
        """Where a method is served."""
        if method.containing_service.name == "LeaseService":
            return self.lease
        return self.router if method.containing_service.file.package == "keyswitch.router.v1" else self.management

    async def call(
        self,
        name: str,
        request: Message,
        token: str = "",
        *,
        channel: grpc.aio.Channel | None = None,
        most_answers: int = 10_000,
        cancel: bool = False,
        timeout_seconds: float | None = TIMEOUT_SECONDS,
    ) -> Outcome:
        """Calls a method by its name without package. `cancel` leaves a stream after `most_answers` messages."""
        full = find_method(name)
        method = METHODS[full]
        if not isinstance(request, message_factory.GetMessageClass(method.input_type)):
            raise TypeError(f"{full} takes {method.input_type.full_name}")
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return await self.call_raw(
            full, request.SerializeToString(), metadata, channel, most_answers, cancel, timeout_seconds
        )

    async def call_raw(
        self,
        full: str,
        request: bytes,
        metadata: Metadata = (),
        channel: grpc.aio.Channel | None = None,
        most_answers: int = 10_000,
        cancel: bool = False,
        timeout_seconds: float | None = TIMEOUT_SECONDS,
    ) -> Outcome:
        """Calls with bytes as they are. Every message, status and piece of metadata that comes back is searched."""
        method = METHODS[full]
        channel = channel or self.channel_of(method)
        kind: Any = message_factory.GetMessageClass(method.output_type)
        # On the wire a unary answer is a stream of one message: one way of reading does for both kinds of method.
        open_stream: Any = channel.unary_stream(f"/{full}")
        call = open_stream(request, metadata=metadata, timeout=timeout_seconds)
        answers: list[Message] = []
        try:
            while len(answers) < most_answers and (data := await call.read()) is not grpc.aio.EOF:
                answers.append(self._search_answer(full, kind.FromString(data)))
        except grpc.aio.AioRpcError:
            pass  # its parts are read from the call below, as for a call that was answered
        if cancel or len(answers) == most_answers:
            call.cancel()
        code = await call.code()
        await self._search_end(full, call)
        book = self.succeeded if code is grpc.StatusCode.OK or answers else self.failed
        book[full] = book.get(full, 0) + 1
        trailing = await call.trailing_metadata()
        return Outcome(code, tuple(answers), _reason(trailing), str(await call.details() or ""), _details(trailing))

    def _search_answer(self, full: str, answer: Message) -> Message:
        searched = type(answer).FromString(answer.SerializeToString())
        if isinstance(searched, token_service_pb2.IssueTokenResponse):
            searched.bearer_token = ""  # the one answer whose purpose it is to hold a secret
        self.scanner.scan("messages", f"answer of {full}", searched.SerializeToString())
        self.scanner.scan("messages", f"text of the answer of {full}", str(searched).encode())
        return answer

    async def _search_end(self, full: str, call: Any) -> None:
        self.scanner.scan("statuses", f"status of {full}", str(await call.details() or "").encode())
        for metadata in (await call.initial_metadata() or (), await call.trailing_metadata() or ()):
            for key, value in metadata:
                data = value if isinstance(value, bytes) else str(value).encode()
                self.scanner.scan("metadata", f"metadata {key} of {full}", data)

    async def close(self) -> None:
        """Closes the channels."""
        for channel in (self.router, self.management, self.lease):
            await channel.close()


def _reason(trailing: Any) -> str:
    for key, value in trailing or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason).removeprefix("ERROR_REASON_")
    return ""


def _details(trailing: Any) -> bytes:
    return b"".join(value for key, value in trailing or () if key == "grpc-status-details-bin")


def open_calls(scanner: Scanner, home: Path, router: str, management: str, lease: str) -> Calls:
    """Opens the channels; that of the leases with the router's own certificate."""
    ca, key, certificate = (home / name for name in ("ca.pem", "router-key.pem", "router.pem"))
    plain = grpc.ssl_channel_credentials(ca.read_bytes())
    mutual = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), certificate.read_bytes())
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 200)]
    return Calls(
        scanner,
        grpc.aio.secure_channel(router, plain, options=options),
        grpc.aio.secure_channel(management, plain, options=options),
        grpc.aio.secure_channel(lease, mutual, options=options),
    )


def misplaced(request: Message, key: str) -> Iterator[tuple[str, Message]]:
    """The request once for each field of text or bytes in it, with the key in that field instead of what belongs there.

    Fields that are not set are filled as well, those of messages that the request does not have yet included, one
    level deep. Free text and the conversation are left out.
    """
    for path in _paths(request.DESCRIPTOR, request, ()):
        copy = type(request).FromString(request.SerializeToString())
        if _put(copy, path, key):
            yield ".".join(path), copy


def _paths(kind: Any, present: Message | None, prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for one in kind.fields:
        if one.full_name in FREE_TEXT or one.containing_type.file.name == CONTENT_FILE:
            continue
        path = (*prefix, one.name)
        if one.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            yield path
        elif one.message_type is not None and not one.message_type.GetOptions().map_entry and len(path) < 5:
            inner = _first(present, one)
            if inner is not None or len(path) < 2:
                yield from _paths(one.message_type, inner, path)


def _first(present: Message | None, one: FieldDescriptor) -> Message | None:
    if present is None:
        return None
    if one.is_repeated:
        values = getattr(present, one.name)
        return values[0] if len(values) else None
    return getattr(present, one.name) if present.HasField(one.name) else None


def _put(target: Message, path: Sequence[str], key: str) -> bool:
    """Puts the key at a path; in a repeated field at its first place."""
    for name in path[:-1]:
        one = target.DESCRIPTOR.fields_by_name[name]
        value: Any = getattr(target, name)
        if one.is_repeated:
            value = value[0] if len(value) else value.add()
        target = value
    one = target.DESCRIPTOR.fields_by_name[path[-1]]
    value = key.encode() if one.type == FieldDescriptor.TYPE_BYTES else key
    if one.is_repeated:
        values = getattr(target, one.name)
        del values[:]
        values.append(value)
    else:
        setattr(target, one.name, value)
    return True
