"""What a change of the configuration can have wrong: a typed error that names the field, and nothing of it applied."""

from pathlib import Path
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import model_service_pb2 as models
from keyswitch.router.v1 import organization_service_pb2 as organizations
from keyswitch.router.v1 import provider_service_pb2 as providers
from keyswitch.router.v1 import settings_pb2

from tests.service.configuration_harness import desks
from tests.service.router_harness import CHAT, DEMO, running_stack

ECHO = "deployment/models/test/echo"
FIRST = models.ModelEndpoint(provider="providers/first", upstream_model_id="x")


def any_value(value: Any) -> Any:
    """A value that the contract has not."""
    return value


def endpoint(**fields: Any) -> models.ModelEntry:
    return models.ModelEntry(
        endpoints=[models.ModelEndpoint(**{"provider": "providers/first", "upstream_model_id": "x", **fields})]
    )


def priced(**fields: Any) -> models.ModelEntry:
    return models.ModelEntry(endpoints=[FIRST], price=models.ModelPrice(**fields))


ENTRIES: dict[str, tuple[models.ModelEntry, str]] = {
    "no endpoint": (models.ModelEntry(), "name"),
    "a provider that is not there": (endpoint(provider="providers/gone"), "endpoints[0].provider"),
    "a provider's bare id": (endpoint(provider="first"), "endpoints[0].provider"),
    "another tenant's provider": (endpoint(provider="organizations/other/providers/x"), "endpoints[0].provider"),
    "an upstream name with a space": (endpoint(upstream_model_id="a b"), "endpoints[0].upstream_model"),
    "a wire that is none": (endpoint(dialect="soap"), "endpoints[0].dialect"),
    "a negative weight": (endpoint(weight=-1), "endpoints[0].weight"),
    "quirks that are no JSON": (endpoint(quirks_json="{"), "endpoints[0].quirks_json"),
    "quirks that are a list": (endpoint(quirks_json="[]"), "endpoints[0].quirks_json"),
    "quirks that nest without end": (endpoint(quirks_json='{"a":' * 9999), "endpoints[0].quirks_json"),
    "a quirk that is none": (endpoint(quirks_json='{"is_nice": true}'), "endpoints[0].quirks.is_nice"),
    "a negative price": (
        priced(input_usd_nanos_per_million_tokens=-1),
        "price.input_usd_nanos_per_million_tokens",
    ),
    "a price beyond all sums": (priced(output_usd_nanos_per_million_tokens=2**63 - 1), "price.output_usd_per_million"),
    "a negative price of a tool": (priced(tool_request_usd_nanos={"x": -1}), "price.tool_request_usd_nanos"),
    "a tool's name with a space": (priced(tool_request_usd_nanos={"a b": 1}), "price.tool_request_usd.a b"),
    "a day that is none": (priced(checked_date="2026-02-30"), "price.checked"),
    "a day in words": (priced(checked_date="today"), "price.checked"),
    "a capability that is none": (
        models.ModelEntry(endpoints=[FIRST], capabilities=[any_value(99)]),
        "capabilities[0]",
    ),
    "a vector without length": (
        models.ModelEntry(endpoints=[FIRST], embedding=models.EmbeddingFacts(dimensions=0)),
        "embedding.dimensions",
    ),
    "a negative context": (models.ModelEntry(endpoints=[FIRST], context_limit_tokens=-1), "context_limit_tokens"),
    "a threshold of 101": (
        models.ModelEntry(endpoints=[FIRST], compression_threshold_percent=101),
        "compression_threshold_percent",
    ),
    "a name of 101 characters": (models.ModelEntry(endpoints=[FIRST], display_name="x" * 101), "display_name"),
    "an alias with a space": (models.ModelEntry(endpoints=[FIRST], aliases=["a b"]), "aliases[0]"),
    "another model's alias": (models.ModelEntry(endpoints=[FIRST], aliases=["echo"]), "aliases[0]"),
    "a temperature of 3": (
        models.ModelEntry(
            endpoints=[FIRST], defaults=settings_pb2.GenerationSettings(sampling=settings_pb2.Sampling(temperature=3))
        ),
        "defaults.sampling.temperature",
    ),
}

MASKS: tuple[Any, ...] = (
    applications.UpdateApplicationRequest(application=applications.Application(name=CHAT), override_file=True),
    models.UpdateModelEntryRequest(model_entry=models.ModelEntry(name=ECHO), override_file=True),
    providers.UpdateProviderRequest(provider=providers.Provider(name="providers/first"), override_file=True),
    organizations.UpdateOrganizationRequest(organization=organizations.Organization(name=DEMO), override_file=True),
    organizations.SetOrganizationPolicyRequest(
        policy=organizations.OrganizationPolicy(name=f"{DEMO}/policy"), override_file=True
    ),
)


async def test_a_model_that_is_wrong_is_named_and_not_made(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        before = stack.router.configuration.current.revision
        for what, (entry, field) in ENTRIES.items():
            request = models.CreateModelEntryRequest(parent="deployment", model="test/bad", model_entry=entry)
            refusal = await operator.refused(request)
            assert (refusal.reason, refusal.fields[:1]) == ("INVALID_REQUEST", (field,)), what
        for name in ("", "bad", "Test/Bad", "../x/y", "a" * 300):
            request = models.CreateModelEntryRequest(
                parent="deployment", model=name, model_entry=models.ModelEntry(endpoints=[FIRST])
            )
            assert (await operator.refused(request)).reason == "INVALID_REQUEST", name
        assert stack.router.configuration.current.revision == before


async def test_masks_of_unknown_fields_and_old_etags_change_nothing(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        for request in MASKS:
            for path in ("nonsense", "name", "etag", "source", "a.b", "*,"):
                masked = type(request)()
                masked.CopyFrom(request)
                masked.update_mask.CopyFrom(FieldMask(paths=["display_name", path]))
                refusal = await operator.refused(masked)
                assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ("update_mask",)), path
            stale = type(request)()
            stale.CopyFrom(request)
            resource = getattr(stale, next(iter(stale.DESCRIPTOR.fields_by_name)))
            resource.etag = "0123456789abcdef"
            assert (await operator.refused(stale)).reason == "ETAG_MISMATCH", type(request).__name__
        assert stack.router.configuration.documents.revision == 0


async def test_what_was_read_and_sent_back_changes_nothing(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator, everything = (await desks(stack))["operator"], FieldMask(paths=["*"])
        names = [
            one.name for one in (await operator(models.ListModelEntriesRequest(parent="deployment"))).model_entries
        ]
        before = stack.router.configuration.current
        for name in [*names[:5], ECHO]:
            read = (await operator(models.GetModelEntryRequest(name=name))).model_entry
            write = models.UpdateModelEntryRequest(model_entry=read, update_mask=everything, override_file=True)
            sent = (await operator(write)).model_entry
            for one in (read, sent):
                one.ClearField("etag")
                one.ClearField("source")
            assert sent == read
        for name in ("providers/first", "providers/openrouter", "providers/zai-coding"):
            found = (await operator(providers.GetProviderRequest(name=name))).provider
            change = providers.UpdateProviderRequest(provider=found, update_mask=everything, override_file=True)
            await operator(change)
        after = stack.router.configuration.current
        assert (after.models, after.providers) == (before.models, before.providers)
