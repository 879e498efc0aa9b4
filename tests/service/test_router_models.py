"""ListModels over the real services: what can be used now, who would pay, and what a form should show first."""

from typing import Any

from keyswitch.router.v1 import model_service_pb2, payer_pb2

from tests.service.configuration_harness import desks
from tests.service.router_answers import Json
from tests.service.router_harness import ADA, running_stack


async def test_a_list_shows_what_can_be_used_now_and_by_whom_it_is_paid(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        member = (await desks(stack))["member"]
        nothing = await member(model_service_pb2.ListModelsRequest())
        assert not nothing.models
        assert "save a key of your own" in nothing.message
        assert "administrator" in nothing.message
        assert "operator" in nothing.message
        await stack.save_key("deployment/credentials/second", provider="second")
        await stack.save_key(f"{ADA}/credentials/mine")
        listed = await member(model_service_pb2.ListModelsRequest())
        payers = {one.model: payer_pb2.Payer.Name(one.payer).removeprefix("PAYER_") for one in listed.models}
        assert payers == {
            "test/echo": "USER_KEY", "test/both": "USER_KEY", "test/unpriced": "USER_KEY", "test/other": "SHARED_KEY",
        }  # fmt: skip
        providers = [one.provider for one in listed.models]
        assert providers == sorted(providers, key=providers.index)  # grouped
        assert [one.model for one in listed.models if one.is_preselected] == ["test/echo"]
        for hint, first in (("test/other", "test/other"), ("else/hidden", "test/echo"), ("gone", "test/echo")):
            again = await member(model_service_pb2.ListModelsRequest(last_used_model=hint))
            assert [one.model for one in again.models if one.is_preselected] == [first]
        await stack.delete_key(f"{ADA}/credentials/mine")
        after = await member(model_service_pb2.ListModelsRequest())
        assert {one.model for one in after.models} == {"test/both", "test/other"}
        assert [one.is_preselected for one in after.models] == [True, False]  # the default cannot be used


async def test_an_application_without_models_says_who_can_help(tmp_path: Any) -> None:
    def narrow(configuration: Json) -> None:
        chat = configuration["organizations"]["demo"]["applications"]["chat"]
        chat["allowed_models"] = ["nothing/*"]
        del chat["default_model"]

    async with running_stack(tmp_path, configuration=narrow) as stack:
        member = (await desks(stack))["member"]
        answer = await member(model_service_pb2.ListModelsRequest())
        assert "may use no model" in answer.message
        assert "administrator" in answer.message
