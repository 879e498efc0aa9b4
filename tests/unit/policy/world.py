"""A small catalog, an application in it, and what its callers have."""

from dataclasses import replace
from typing import Any

from router_service.catalog.catalog import (
    Application,
    DeploymentCredential,
    Endpoint,
    Model,
    Organization,
    Provider,
    Snapshot,
    index_references,
)
from router_service.core.caller import Credential, Holdings
from router_service.core.endpoint import AuthScheme, parse_base_url
from router_service.core.money import Price
from router_service.core.resolution import Payer
from router_service.dialects.base import Quirks
from router_service.policy.call import Call, RoutePolicy

NOW = 1000.0
APPLICATION = "organizations/acme/applications/app"
PAYERS = (Payer.USER_KEY, Payer.ORGANIZATION_KEY, Payer.SHARED_KEY, Payer.CREDITS)
OWNERS = {
    Payer.USER_KEY: "organizations/acme/users/ada",
    Payer.ORGANIZATION_KEY: "organizations/acme",
    Payer.SHARED_KEY: "deployment",
}
PRICE = Price(input_nanos=1_000_000_000, output_nanos=4_000_000_000)


def provider(name: str, **fields: Any) -> Provider:
    """A provider at its own origin."""
    base_url = parse_base_url(f"https://{name}.example/v1")
    return Provider(name, name, "openai_chat", base_url, fields.pop("auth", AuthScheme.BEARER), **fields)


def model(name: str, *providers: str, **fields: Any) -> Model:
    """A model at these providers."""
    endpoints = tuple(Endpoint(one, name, Quirks()) for one in providers)
    return Model(name, endpoints, price=fields.pop("price", PRICE), **fields)


def snapshot(*models: Model, providers: tuple[Provider, ...] = (), **fields: Any) -> Snapshot:
    """A configuration with providers one, two and three."""
    every = {one.id: one for one in (*map(provider, ("one", "two", "three")), *providers)}
    by_id = {one.id: one for one in models or (model("m", "one", "two"), model("n", "two"), model("o", "three"))}
    served = {
        name: DeploymentCredential(name, name, frozenset({Payer.SHARED_KEY, Payer.CREDITS}))
        for name in ("one", "two", "three")
    }
    return Snapshot(
        "1",
        providers=every,
        models=by_id,
        deployment_credentials=served,
        references=index_references(by_id),
        **fields,
    )


def credential(owner: str, provider_id: str, **fields: Any) -> Credential:
    """A credential that can be used, named as its provider."""
    made = Credential(
        name=f"{owner}/credentials/{provider_id}",
        provider=f"providers/{provider_id}",
        plan="",
        allowed_origins=(f"https://{provider_id}.example",),
        is_enabled=True,
        active_version=f"{owner}/credentials/{provider_id}/versions/1",
        expire_time=None,
    )
    return replace(made, **fields)


def holdings(*, user: str = "", organization: str = "", deployment: str = "", byok: bool = True) -> Holdings:
    """Who has keys for which providers; names apart by spaces."""

    def owned(payer: Payer, names: str) -> tuple[Credential, ...]:
        return tuple(credential(OWNERS[payer], name) for name in names.split())

    return Holdings(
        owned(Payer.USER_KEY, user),
        owned(Payer.ORGANIZATION_KEY, organization),
        owned(Payer.SHARED_KEY, deployment),
        byok,
    )


def call(reference: str = "m", *, policy: RoutePolicy | None = None, **fields: Any) -> Call:
    """A call by an application with these fields."""
    application = Application(APPLICATION, **{"payers": PAYERS, **fields})
    organization = Organization("acme", default_model="", applications={"app": application})
    return Call(reference, organization, application, policy or RoutePolicy())
