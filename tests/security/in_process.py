"""Both services in this process, with the canary test's configuration and right requests for every method."""

import types
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from google.protobuf.message import Message
from ruamel.yaml import YAML

from deploy.local.stack import ORGANIZATION
from tests.security.canary import Scanner
from tests.security.canary_calls import METHODS, Outcome, find_method, open_calls
from tests.security.canary_deployment import CONFIGURATION, Watched
from tests.security.canary_requests import (
    Step,
    audit_steps,
    credential_steps,
    ending_steps,
    lease_steps,
    router_steps,
    token_steps,
)
from tests.security.canary_router_requests import configuration_ends, configuration_steps, money_steps, plan_steps
from tests.service.router_harness import Stack, running_stack


@dataclass
class InProcess:
    """Both services, and a right request for each of their methods."""

    watched: Watched
    stack: Stack

    async def steps(self) -> list[Step]:
        """In an order in which all succeed; the first makes what others need."""
        watched = self.watched
        found = [
            *credential_steps(watched),
            *router_steps(watched),
            *plan_steps(watched),
            *configuration_steps(watched),
            *money_steps(),
            *token_steps(),
            *audit_steps(),
            *await lease_steps(watched),
            await self.revocation(),
            *configuration_ends(),
            *ending_steps(),
        ]
        assert {find_method(step.method) for step in found} == set(METHODS)
        return found

    async def revocation(self) -> Step:
        """The end of a token that was made for it."""
        issue = next(step for step in token_steps() if step.method == "IssueToken")
        outcome = await self.run(issue)
        issued = cast("Any", outcome.answers[0])
        from keyswitch.vault.v1 import token_service_pb2

        return Step("RevokeToken", token_service_pb2.RevokeTokenRequest(name=issued.token.name))

    async def run(self, step: Step, token: str | None = None) -> Outcome:
        """Makes a call; by another caller where a token is given."""
        upstream = self.watched.upstream
        upstream.scripts.clear()
        upstream.script(*step.scripts)
        if token is None or not step.caller:
            token = self.watched.tokens[step.caller] if step.caller else ""
        return await self.watched.calls.call(step.method, step.request, token, most_answers=step.most_answers)


@asynccontextmanager
async def running_in_process(home: Path, **changes: Any) -> AsyncIterator[InProcess]:
    """Runs both, with ada's, the organization's and the deployment's keys in place."""

    def configure(made: dict[str, Any]) -> None:
        port = made["providers"]["first"]["base_url"].rpartition(":")[2].partition("/")[0]
        made.clear()
        made.update(YAML(typ="safe").load(CONFIGURATION.replace("UPSTREAM", port).replace("CLOSED", "1")))
        for model in made["models"].values():
            model["price"]["checked"] = str(model["price"]["checked"])
        made["organizations"]["other"] = {"users": ["eve"], "applications": {}}

    async with running_stack(home, configuration=configure, **changes) as stack:
        router, vault = f"localhost:{stack.router.port}", stack.vault.service
        management, lease = f"localhost:{vault.management_port}", f"localhost:{vault.lease_port}"
        scanner = Scanner()
        calls = open_calls(scanner, home, router, management, lease)
        place = types.SimpleNamespace(home=home)
        watched = Watched(cast("Any", place), stack.first, calls, scanner, home, 1)
        watched.tokens = {
            "operator": stack.vault.operator.token,
            "admin": stack.admin.token,
            "member": stack.member.token,
            "auditor": (await stack.vault.issue(ORGANIZATION, "AUDITOR")).token,
        }
        await watched.save_all()
        await stack.settle()
        try:
            yield InProcess(watched, stack)
        finally:
            await calls.close()


def renamed(message: Message, names: Mapping[str, str]) -> Any:
    """A copy in which every text has these parts replaced."""
    copy = type(message).FromString(message.SerializeToString())
    _rename(copy, names)
    return copy


def _rename(message: Any, names: Mapping[str, str]) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        repeated = field.is_repeated
        if field.message_type is not None:
            for one in value if repeated else (value,):
                _rename(one, names)
        elif field.type == field.TYPE_STRING:
            if repeated:
                replaced = [_replace(text, names) for text in value]
                del value[:]
                value.extend(replaced)
            else:
                setattr(message, field.name, _replace(value, names))


def _replace(text: str, names: Mapping[str, str]) -> str:
    for name, other in names.items():
        text = text.replace(name, other)
    return text
