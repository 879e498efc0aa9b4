"""Changes as the feed tells them."""

from typing import assert_never

from keyswitch.vault.v1 import lease_service_pb2 as pb

from vault_service.core.changes import Change, CredentialUpdated, OwnerRevoked, PolicyUpdated, TokenRevoked
from vault_service.transport.wire import make_timestamp


def build_change(change: Change) -> pb.CredentialChange:
    """Builds one change."""
    message = pb.CredentialChange(revision=change.revision, change_time=make_timestamp(change.change_time))
    what = change.what
    match what:
        case CredentialUpdated():
            message.credential.CopyFrom(
                pb.CredentialUpdate(
                    type=pb.CredentialChangeType.Value(f"CREDENTIAL_CHANGE_TYPE_{what.type}"),
                    credential=what.credential,
                    provider=what.provider,
                    credential_version=what.credential_version,
                    active_version=what.active_version,
                    kill_in_flight=what.kill_in_flight,
                )
            )
        case OwnerRevoked():
            message.owner_revocation.CopyFrom(pb.OwnerRevocation(owner=what.owner, kill_in_flight=what.kill_in_flight))
        case TokenRevoked():
            message.token_revocation.CopyFrom(
                pb.TokenRevocation(token_id=what.token_id, expire_time=make_timestamp(what.expire_time))
            )
        case PolicyUpdated():
            message.credential_policy.CopyFrom(pb.CredentialPolicyUpdate(owner=what.owner))
        case _:
            assert_never(what)
    return message
