"""Grants on the command line: a key file as Google gives it, and JSON as the contract has it."""

import json

import pytest
from keyswitch.vault.v1 import credential_pb2
from keyswitch_cli.key_add import kind_of
from keyswitch_cli.key_grant import parse
from keyswitch_cli.problem import Problem


def test_a_key_file_is_kept_byte_for_byte() -> None:
    text = json.dumps({"type": "service_account", "client_email": "a@b", "private_key": "CANARY"}, indent=2)
    material = parse(text)
    assert material.google_service_account.key_json == text
    assert kind_of(material) == credential_pb2.CREDENTIAL_KIND_GOOGLE_SERVICE_ACCOUNT


def test_a_grant_is_read_in_both_spellings_of_json() -> None:
    for name in ("refresh_token", "refreshToken"):
        material = parse(json.dumps({"oauth": {name: "r", "client_id": "c", "scopes": ["a"]}}))
        assert (material.oauth.refresh_token, list(material.oauth.scopes)) == ("r", ["a"])
        assert kind_of(material) == credential_pb2.CREDENTIAL_KIND_OAUTH
    assert kind_of(parse('{"entra": {"client_id": "c"}}')) == credential_pb2.CREDENTIAL_KIND_AZURE_ENTRA


@pytest.mark.parametrize("text", ["{", '{"oauth": {"refresh_tokn": "CANARY"}}', '{"oauth": 7}', '{"x": "CANARY"}'])
def test_other_json_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(text)
    assert "CANARY" not in str(caught.value) + str(caught.value.__context__ is None)
