"""The contract has no place for a secret in what is answered: read from its descriptors, not from its comments."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor

from tests.security.canary_calls import METHODS, is_redacted

# The two answers that hold a secret by purpose: one sealed to the router that asked, one given once.
ALLOWED = {
    "keyswitch.vault.v1.LeaseCredentialResponse.sealed_material",
    "keyswitch.vault.v1.IssueTokenResponse.bearer_token",
}


def reachable(kind: Descriptor, seen: set[str]) -> Iterator[str]:
    """The secret fields of a message and of all messages in it."""
    if kind.full_name in seen:
        return
    seen.add(kind.full_name)
    for field in kind.fields:
        if is_redacted(field):
            yield field.full_name
        if field.message_type is not None:
            yield from reachable(field.message_type, seen)


def test_no_answer_has_a_field_for_a_secret() -> None:
    found = {name for method in METHODS.values() for name in reachable(method.output_type, set())}
    assert found == ALLOWED


def test_the_search_sees_secret_fields() -> None:
    found = {name for method in METHODS.values() for name in reachable(method.input_type, set())}
    assert {
        "keyswitch.vault.v1.AddCredentialVersionRequest.secret_material",
        "keyswitch.vault.v1.SecretMaterial.api_key",
        "keyswitch.vault.v1.OauthGrant.refresh_token",
        "keyswitch.vault.v1.LeaseCredentialRequest.caller_proof",
    } <= found
