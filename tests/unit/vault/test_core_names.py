"""Resource names: what is read is what is written, and nothing else is read."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_service.core import names
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import CredentialName, Owner, RecordName, TokenName, VersionName

IDS = st.from_regex(r"\A[a-z][a-z0-9-]{1,61}[a-z0-9]\Z")
CREDENTIAL_IDS = st.from_regex(r"\A[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z")
TOKEN_IDS = st.from_regex(r"\A[A-Za-z0-9_-]{22}\Z")
OWNERS = st.one_of(st.just(Owner()), st.builds(Owner, IDS), st.builds(Owner, IDS, IDS))
TENANTS = st.one_of(st.just(Owner()), st.builds(Owner, IDS))
CREDENTIALS = st.builds(CredentialName, OWNERS, CREDENTIAL_IDS)


@given(OWNERS)
def test_owners_are_read_as_written(owner: Owner) -> None:
    assert names.parse_owner(str(owner)) == owner


@given(CREDENTIALS, st.integers(1, 10**12))
def test_credentials_and_versions_are_read_as_written(credential: CredentialName, number: int) -> None:
    assert names.parse_credential(str(credential)) == credential
    version = VersionName(credential, number)
    assert names.parse_version(str(version)) == version


@given(TENANTS, TOKEN_IDS)
def test_tokens_are_read_as_written(owner: Owner, token_id: str) -> None:
    assert names.parse_token(str(TokenName(owner, token_id))) == TokenName(owner, token_id)


def test_records_are_read_as_written() -> None:
    assert names.parse_record("chains/vault-0/records/9000") == RecordName("vault-0", 9000)
    assert names.parse_chain("chains/-") == "-"


def test_active_is_read_only_where_it_may_stand() -> None:
    text = "deployment/credentials/main/versions/active"
    assert names.parse_version(text, allow_active=True).number is None
    with pytest.raises(Fault):
        names.parse_version(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "organizations",
        "organizations/",
        "organizations/A",
        "organizations/ab/../cd",
        "organizations/ab/users/",
        "organizations/ab/users/kim/",
        "organizations/ab/teams/kim",
        "deployment/users/kim",
        "organizations/-ab",
        "organizations/ab-",
        "organizations/ab\n",
        "organizations/aé",
        "organizations/" + "a" * 64,
    ],
)
def test_what_is_no_owner_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(Fault) as caught:
        names.parse_owner(text, "parent")
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [one.field for one in caught.value.violations] == ["parent"]


@pytest.mark.parametrize("number", ["0", "01", "-1", "1e3", "９", "", "1" * 19])
def test_version_numbers_are_plain(number: str) -> None:
    with pytest.raises(Fault):
        names.parse_version(f"deployment/credentials/main/versions/{number}")


@given(st.text(max_size=80))
def test_no_text_breaks_the_readers(text: str) -> None:
    for read in (
        names.parse_owner,
        names.parse_credential,
        names.parse_version,
        names.parse_token,
        names.parse_chain,
        names.parse_record,
        names.parse_policy,
        names.parse_principal,
    ):
        with suppress(Fault):
            read(text)


def test_an_organizations_provider_is_for_its_own_keys() -> None:
    assert names.check_provider("providers/openai", Owner()) == "providers/openai"
    own = "organizations/acme/providers/corp"
    assert names.check_provider(own, Owner("acme", "ada")) == own
    for owner in (Owner(), Owner("other")):
        with pytest.raises(Fault):
            names.check_provider(own, owner)


def test_below_means_a_whole_segment() -> None:
    acme = Owner("acme")
    assert names.is_within("organizations/acme/credentials/main", acme)
    assert names.is_within("organizations/acme", acme)
    assert not names.is_within("organizations/acme2/credentials/main", acme)


def test_tenants_are_organizations() -> None:
    assert Owner("acme", "ada").tenant == "organizations/acme"
    assert Owner().tenant == "deployment"


def test_request_ids_are_uuid4() -> None:
    assert names.check_request_id("4F7C1A52-1D0E-4B8E-9A77-0C2F8F0F7D11") == "4f7c1a52-1d0e-4b8e-9a77-0c2f8f0f7d11"
    assert names.check_request_id("") == ""
    with pytest.raises(Fault):
        names.check_request_id("4f7c1a52-1d0e-1b8e-9a77-0c2f8f0f7d11")
