"""Which of the deployment's credentials the environment fixes: for which provider, where they may go, and the value."""

from collections.abc import Callable
from pathlib import Path

from google.protobuf import json_format
from keyswitch.vault.v1 import credential_pb2

from vault_service.core.faults import Fault
from vault_service.core.fixed import FixedCredential
from vault_service.core.names import CredentialName, Owner, check_credential_id
from vault_service.minting.endpoints import TokenEndpoints
from vault_service.transport.wire import read_draft
from vault_service.transport.wire_secrets import read_material

MAX_FILE_BYTES = 65_536

_CAUSES = {
    "whitespace": "holds spaces or line breaks",
    "quotes": "holds quotes",
    "characters": "holds characters beyond printable ASCII",
    "too_short": "is too short for a key",
    "too_long": "is too long for a key",
    "format": "is not in its form",
}
_ENDINGS = {
    "credential.provider": "_PROVIDER",
    "credential.plan": "_PLAN",
    "credential.allowed_origins": "_ORIGINS",
}
_SOURCES = ("_KEY", "_KEY_FILE", "_MATERIAL_FILE")

ReadText = Callable[[str, str], str]


class FixedSettingsError(Exception):
    """A variable says something that cannot be; the text names the variable and never repeats what it says."""


def is_secret(name: str, prefix: str) -> bool:
    """Whether a variable holds a key itself."""
    return name.startswith(f"{prefix}FIXED_") and name.endswith("_KEY")


def read_fixed(read: ReadText, prefix: str, endpoints: TokenEndpoints) -> tuple[FixedCredential, ...]:
    """Reads them all. `read` gives the text of a variable, whose name it is given without the prefix."""

    def read_ascii(name: str, default: str) -> str:
        text = read(name, default)
        if not text.isascii():
            raise FixedSettingsError(f"{prefix}{name} {_CAUSES['characters']}")
        return text

    fixed: dict[str, FixedCredential] = {}
    for credential_id in filter(None, (one.strip() for one in read_ascii("FIXED_CREDENTIALS", "").split(","))):
        listing = f"{prefix}FIXED_CREDENTIALS"
        try:
            check_credential_id(credential_id)
        except Fault:
            raise FixedSettingsError(f"{listing} must be ids with commas: [a-z]([a-z0-9-]{{0,61}}[a-z0-9])?") from None
        if credential_id in fixed:
            raise FixedSettingsError(f"{listing} names a credential twice")
        fixed[credential_id] = _read_one(read_ascii, prefix, credential_id, endpoints)
    return tuple(fixed.values())


def _read_one(read: ReadText, prefix: str, credential_id: str, endpoints: TokenEndpoints) -> FixedCredential:
    stem = f"FIXED_{credential_id.upper().replace('-', '_')}"
    provider = read(f"{stem}_PROVIDER", credential_id)
    origins = [one.strip() for one in read(f"{stem}_ORIGINS", "").split(",")]
    plan = read(f"{stem}_PLAN", "")
    ending, material = _read_material(read, prefix, stem)
    variable = f"{prefix}{stem}{ending}"
    try:
        kind, secret, fingerprint = read_material(material, endpoints)
    except Fault as fault:
        raise FixedSettingsError(f"{variable} {_describe(fault)}") from None
    if kind == "OAUTH":
        raise FixedSettingsError(f"{variable} holds an OAuth grant, which renews itself; put it in over gRPC")
    said = credential_pb2.Credential(
        provider=provider if "/" in provider else f"providers/{provider}",
        kind=credential_pb2.CredentialKind.Value(f"CREDENTIAL_KIND_{kind}"),
        plan=plan,
        allowed_origins=origins,
    )
    try:
        draft = read_draft(said, Owner())
    except Fault as fault:
        field = fault.metadata["field"].partition("[")[0]
        raise FixedSettingsError(f"{prefix}{stem}{_ENDINGS[field]} {_describe(fault)}") from None
    return FixedCredential(CredentialName(Owner(), credential_id), draft, secret, fingerprint, variable)


def _read_material(read: ReadText, prefix: str, stem: str) -> tuple[str, credential_pb2.SecretMaterial]:
    given = {ending: text for ending in _SOURCES if (text := read(stem + ending, ""))}
    if len(given) != 1:
        names = ", ".join(f"{prefix}{stem}{ending}" for ending in _SOURCES)
        raise FixedSettingsError(f"exactly one of {names} must be set, and not be empty; {len(given)} are")
    ((ending, text),) = given.items()
    if ending == "_KEY":
        return ending, credential_pb2.SecretMaterial(api_key=text)
    held = _read_file(text, f"{prefix}{stem}{ending}")
    if ending == "_KEY_FILE":
        return ending, credential_pb2.SecretMaterial(api_key=held)
    try:
        return ending, json_format.Parse(held, credential_pb2.SecretMaterial())
    except (json_format.ParseError, ValueError, RecursionError):
        raise FixedSettingsError(f"{prefix}{stem}{ending} holds no SecretMaterial as JSON") from None


def _read_file(path: str, variable: str) -> str:
    try:
        with Path(path).open("rb") as file:
            held = file.read(MAX_FILE_BYTES + 1)
        text = held.decode("ascii")
    except OSError as error:
        raise FixedSettingsError(f"{variable} names a file that cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FixedSettingsError(f"{variable} names a file that holds more than plain ASCII text") from None
    if len(held) > MAX_FILE_BYTES:
        raise FixedSettingsError(f"{variable} names a file of more than {MAX_FILE_BYTES} bytes")
    # What mounts a secret, and whoever writes a file by hand, often ends it with a line feed.
    return text.removesuffix("\n").removesuffix("\r")


def _describe(fault: Fault) -> str:
    if fault.violations:
        return fault.violations[0].description
    return _CAUSES.get(fault.metadata.get("cause", ""), "does not fit")
