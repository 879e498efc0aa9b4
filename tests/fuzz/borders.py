"""`python -m tests.fuzz.borders SECONDS`: atheris drives what reads bytes of others at the borders of both services.

Names, origins, page tokens, certificates, sealed leases, callers' tokens, changes of the log, answers of Vault and the
configuration. Each has the errors that it may raise; anything else, ten seconds or 2 GiB end the run with a failure.
"""

import json
from collections.abc import Mapping

import atheris

with atheris.instrument_imports(include=["vault_service.core", "vault_service.transport", "router_service.catalog"]):
    from keyswitch.vault.v1 import lease_pb2

    from router_service.catalog.loader import load_snapshot
    from router_service.catalog.problems import ConfigurationError
    from vault_service.core import names
    from vault_service.core.faults import Fault
    from vault_service.core.origins import check_origin
    from vault_service.core.sealing import parse_chain
    from vault_service.core.tokens import read_claims
    from vault_service.transport.pages import decode_token

from google.protobuf.message import DecodeError

from tests.fuzz.dispatch import Targets, fuzz
from vault_service.store.hvac_session import _errors, _json_object
from vault_service.store.store import StoreError
from vault_service.store.vault_errors import error_of

PARSERS = (
    names.parse_owner,
    names.parse_user,
    names.parse_application,
    names.parse_credential,
    names.parse_version,
    names.parse_token,
    names.parse_policy,
    names.parse_chain,
    names.parse_record,
    names.parse_principal,
    check_origin,
)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _names(data: bytes) -> None:
    for parse in PARSERS:
        try:
            parse(_text(data), "field")
        except Fault:
            continue


def _vault_answer(data: bytes) -> None:
    error = error_of(400 + (data[0] if data else 0), _errors(_json_object(data)))
    assert isinstance(error, StoreError)
    assert not data[8:].strip() or _text(data[8:]) not in str(error) or len(data) < 24


def _claims(data: bytes) -> None:
    try:
        claims = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(claims, Mapping):
        read_claims(claims)


def _page_token(data: bytes) -> None:
    decode_token(("list", "organizations/acme"), _text(data))


def _chain(data: bytes) -> None:
    parse_chain([data])


def _material(data: bytes) -> None:
    lease_pb2.LeasedMaterial.FromString(data)


def _configuration(data: bytes) -> None:
    load_snapshot(_text(data), source="fuzz", builtin=False)


TARGETS: Targets = {
    _names: (),
    _page_token: (Fault,),
    _chain: (Fault,),
    _claims: (Fault,),
    _material: (DecodeError,),
    _vault_answer: (),
    _configuration: (ConfigurationError,),
}
SEEDS = (
    b"organizations/acme/users/ada/credentials/main/versions/1",
    b"https://api.openai.com:443",
    b"WyJhYWFhYWFhYWFhYWFhYWFhIiwgImN1cnNvciJd",
    b'{"sub":"organizations/acme","org":"acme","roles":["ADMIN"],"exp":1,"iat":0,"jti":"t"}',
    b'{"errors":["Vault is sealed"],"request_id":"x","data":{"data":{"value":"eA=="},"metadata":{"version":1}}}',
    b"deployment:\n  name: keyswitch\norganizations:\n  acme:\n    users: [ada]\n",
)


if __name__ == "__main__":
    fuzz(TARGETS, SEEDS, most_bytes=65536)
