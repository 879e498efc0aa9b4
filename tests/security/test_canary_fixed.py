"""The canary search over keys that the credential service takes from its own environment: a variable, a file."""

from pathlib import Path

from keyswitch.router.v1 import completion_service_pb2
from keyswitch.vault.v1 import credential_pb2
from keyswitch.vault.v1 import credential_service_pb2 as pb

from tests.fakes.scripted_upstream import Action, Received
from tests.security import canary_upstream as answers
from tests.security.canary import Canary, make_key
from tests.security.canary_deployment import CLAUDE, Watched, watched_deployment
from tests.security.promises import tried
from tests.service.vault_harness import Router

FIXED, MOUNTED = "deployment/credentials/fixed", "deployment/credentials/mounted"
PREFIX = "KEYSWITCH_VAULT_FIXED_"


def variables(origin: str, key: str, file: Path) -> dict[str, str]:
    """What the operator sets."""
    named = {
        "CREDENTIALS": "fixed,mounted",
        "FIXED_PROVIDER": "scripted-anthropic",
        "FIXED_ORIGINS": origin,
        "FIXED_KEY": key,
        "MOUNTED_PROVIDER": "scripted",
        "MOUNTED_ORIGINS": origin,
        "MOUNTED_KEY_FILE": str(file),
    }
    return {PREFIX + name: value for name, value in named.items()}


async def test_no_key_of_the_environment_gets_out(tmp_path: Path) -> None:
    key, mounted = make_key("a key of a variable", "sk-ant-api03-"), make_key("a key of a file")
    file = tmp_path / "mounted"
    file.write_text(mounted.value + "\n")
    more = {"fixed": lambda origin: variables(origin, key.value, file)}
    async with watched_deployment(tmp_path / "one", "debug", **more) as watched:  # type: ignore[arg-type] # no text
        watched.scanner.add(key, mounted)
        await drive(watched, key, mounted)
        await watched.search_everything()
        await watched.stack.stop()
        for name, wrong in (("a space", f"{key.value} "), ("quotes", f'"{key.value}"')):
            watched.stack.vault_environment[f"{PREFIX}FIXED_KEY"] = wrong
            watched.stack.start_process("vault", "vault_service")
            assert watched.stack.processes["vault"].wait(30) == 78, name
        watched.search_files()
    scanner, calls = watched.scanner, watched.calls
    made = sum(calls.succeeded.values()) + sum(calls.failed.values())
    print(f"\nkeys of the environment: {made} calls; {scanner.report()}")
    assert not scanner.hits, "\n".join(sorted({str(hit) for hit in scanner.hits}))
    tried(1, "canaries of the service's own environment", secrets=2, calls=made, hits=0)


async def drive(watched: Watched, key: Canary, mounted: Canary) -> None:
    """Reads, leases and uses them while the provider repeats what it was sent; changes them, refused and meant."""
    operator, member, router = watched.tokens["operator"], watched.tokens["member"], Router(watched.stack.home)
    sent: list[str] = []

    def repeat(request: Received) -> list[Action]:
        sent.append(request.headers.get("x-api-key", ""))
        return answers.echo_error(401 if len(sent) % 2 else 500, " ".join(sent))

    watched.upstream.choose = repeat
    for name in (FIXED, MOUNTED):
        got = (await watched.calls.call("GetCredential", pb.GetCredentialRequest(name=name), operator)).answers[0]
        assert isinstance(got, pb.GetCredentialResponse)
        assert got.credential.source == credential_pb2.CREDENTIAL_SOURCE_ENVIRONMENT
        lease = router.request(
            f"{name}/versions/active", member, origin=watched.origin, principal="organizations/demo/users/ada"
        )
        assert (await watched.calls.call("LeaseCredential", lease)).is_ok
    call = watched.call_for(CLAUDE, "SHARED_KEY")
    for method, request in (
        ("Complete", completion_service_pb2.CompleteRequest(call=call)),
        ("StreamComplete", completion_service_pb2.StreamCompleteRequest(call=call)),
    ):
        assert not (await watched.calls.call(method, request, member)).is_ok, method
    assert key.value in sent, "the provider was sent the key of the variable"
    for is_meant in (False, True):
        for name, canary in ((FIXED, key), (MOUNTED, mounted)):
            add = pb.AddCredentialVersionRequest(
                parent=name,
                secret_material=credential_pb2.SecretMaterial(api_key=canary.value),
                override_environment=is_meant,
            )
            added = await watched.calls.call("AddCredentialVersion", add, operator)
            assert added.reason == ("" if is_meant else "CREDENTIAL_FIXED")
            versions = pb.ListCredentialVersionsRequest(parent=name)
            assert (await watched.calls.call("ListCredentialVersions", versions, operator)).is_ok
