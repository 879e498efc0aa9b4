"""Two whole routers over one PostgreSQL and one Redis: one configuration, no lost update, no half of a change."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import configuration_service_pb2, resolution_pb2

from router_service.catalog.stored import Documents
from tests.fakes.postgres_server import PostgresServer
from tests.fakes.redis_server import RedisServer
from tests.service.configuration_harness import Desk
from tests.service.router_answers import answer
from tests.service.router_harness import CHAT, DEMO, Refused, make_call
from tests.service.test_router_configuration import first
from tests.service.two_routers import Pair, running_pair


@pytest.fixture
async def pair(tmp_path: Path, own_postgres_server: PostgresServer, redis_server: RedisServer) -> AsyncIterator[Pair]:
    async with running_pair(tmp_path, own_postgres_server, redis_server) as running:
        yield running


def renaming(name: str, etag: str) -> applications.UpdateApplicationRequest:
    return applications.UpdateApplicationRequest(
        application=applications.Application(name=CHAT, display_name=name, etag=etag),
        update_mask=FieldMask(paths=["display_name"]),
        override_file=True,
    )


async def test_a_change_at_one_counts_at_the_other(pair: Pair) -> None:
    text = "organizations: {demo: {applications: {chat: {overrides: {title: test/both}}}}}"
    await pair.here(configuration_service_pb2.ImportConfigurationRequest(parent=DEMO, yaml=text))
    await pair.follow()
    told = await first(pair.there, context="title", application=CHAT)
    assert (told.model, told.model_source) == ("test/both", resolution_pb2.MODEL_SOURCE_ADMINISTRATOR_OVERRIDE)
    pair.stack.first.script(answer())
    done = await pair.member_there.stream(make_call(context="title"))
    assert done.receipt.attempts[0].model == "test/both"


async def test_a_change_arrives_by_itself(pair: Pair) -> None:
    taken, take = asyncio.Event(), pair.other.configuration.take

    def watched(documents: Documents) -> bool:
        is_new = take(documents)
        taken.set()
        return is_new

    pair.other.configuration.take = watched  # type: ignore[method-assign] # only to be told of it
    await pair.here(applications.CreateApplicationRequest(parent=DEMO, application_id="tool"))
    async with asyncio.timeout(60):
        await taken.wait()
    assert "tool" in pair.other.configuration.current.organizations["demo"].applications


async def test_of_concurrent_updates_none_is_lost(pair: Pair) -> None:
    done: list[str] = []

    async def work(desk: Desk, worker: str) -> None:
        for number in range(8):
            while True:
                found = (await desk(applications.GetApplicationRequest(name=CHAT))).application
                try:
                    await desk(renaming(f"{found.display_name}|{worker}{number}", found.etag))
                except Refused as refusal:
                    assert refusal.reason == "ETAG_MISMATCH"  # noqa: PT017 # a refusal is part of the law
                    continue
                done.append(f"{worker}{number}")
                break

    await asyncio.gather(work(pair.here, "a"), work(pair.there, "b"))
    await pair.stack.router.look_at_documents()
    final = (await pair.here(applications.GetApplicationRequest(name=CHAT))).application.display_name
    assert sorted(final.strip("|").split("|")[-16:]) == sorted(done)
    assert pair.stack.router.configuration.documents.revision == 16


async def test_a_stale_etag_is_told_at_the_router_that_has_not_looked_yet(pair: Pair) -> None:
    old = (await pair.there(applications.GetApplicationRequest(name=CHAT))).application
    await pair.here(renaming("here", old.etag))
    assert (await pair.there.refused(renaming("there", old.etag))).reason == "ETAG_MISMATCH"
    exported = await pair.there(configuration_service_pb2.ExportConfigurationRequest(parent=DEMO))
    await pair.here(renaming("again", ""))
    stale = configuration_service_pb2.ImportConfigurationRequest(
        parent=DEMO, yaml="organizations: {demo: {applications: {new: {}}}}", etag=exported.etag
    )
    assert (await pair.there.refused(stale)).reason == "ETAG_MISMATCH"


async def test_without_the_database_both_serve_on_and_say_so(pair: Pair) -> None:
    before = pair.other.configuration.current.revision
    pair.server.stop()
    create = applications.CreateApplicationRequest(parent=DEMO, application_id="tool")
    refusal = await pair.there.refused(create)
    assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "CONFIGURATION_UNAVAILABLE")
    await pair.follow()
    assert pair.other.configuration.current.revision == before
    assert (await first(pair.there, application=CHAT)).model
    page = f"http://127.0.0.1:{pair.other.http_port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{page}/readyz") as told:
            assert (told.status, await told.text()) == (200, "ready; the store of the configuration is out of reach\n")
        async with session.get(f"{page}/metrics") as told:
            assert "keyswitch_configuration_away 1.0" in await told.text()
        pair.server.start()
        await pair.follow()
        async with session.get(f"{page}/readyz") as told:
            assert await told.text() == "ready\n"
    assert (await pair.there(create)).application.name == f"{DEMO}/applications/tool"
