"""Who uses it: organizations, their applications, and the deployment's credentials."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from router_service.catalog.catalog import (
    DEFAULT_PAYERS,
    FREE,
    Application,
    DeploymentCredential,
    Organization,
    RateLimits,
    Route,
    Snapshot,
)
from router_service.catalog.document import Document
from router_service.catalog.problems import Path, Problem, suggest
from router_service.catalog.settings import build_settings
from router_service.core.resolution import OverrideLayer, Payer, PayerFailoverCause

_ID = "[a-z][a-z0-9-]{1,61}[a-z0-9]"
_CREDENTIAL = re.compile(
    rf"(?:(?P<deployment>deployment)|organizations/(?P<organization>{_ID})(?:/users/(?P<user>{_ID}))?)"
    rf"/credentials/(?P<credential>{_ID})"
)


@dataclass(frozen=True, slots=True)
class Tenants:
    """Builds tenants over a snapshot of the offers. The `declared_…` names are all that the file has, faulty or not."""

    document: Document
    snapshot: Snapshot
    declared_providers: frozenset[str]
    declared_models: frozenset[str]
    declared_credentials: frozenset[str]
    problems: list[Problem]
    owner: str = ""  # the organization whose own entries count, by name
    lenient: frozenset[Path] = frozenset()  # where stored documents are: choices of models in them may be out of date

    def build_credentials(self) -> dict[str, DeploymentCredential]:
        """The deployment's credentials."""
        built: dict[str, DeploymentCredential] = {}
        for credential_id, raw in self.document.value.get("deployment_credentials", {}).items():
            self.check_provider(("deployment_credentials", credential_id, "provider"), raw["provider"])
            payers = frozenset(Payer(payer) for payer in raw["payers"])
            built[credential_id] = DeploymentCredential(credential_id, raw["provider"], payers)
        return built

    def build_organizations(self) -> dict[str, Organization]:
        """The organizations with their applications."""
        return {
            organization_id: self._seeing(organization_id).build_organization(organization_id, raw)
            for organization_id, raw in self.document.value.get("organizations", {}).items()
        }

    def _seeing(self, organization_id: str) -> "Tenants":
        """This, for an organization: its own entries count beside the deployment's."""
        view = self.snapshot.view_of(organization_id)
        if view is self.snapshot:
            return self
        raw = self.document.value["organizations"][organization_id]
        models = raw.get("models", {})
        aliases = [alias for entry in models.values() for alias in entry.get("aliases", ())]
        return replace(
            self,
            snapshot=view,
            owner=f"organizations/{organization_id}",
            declared_providers=self.declared_providers | raw.get("providers", {}).keys(),
            declared_models=self.declared_models.union(models, aliases),
        )

    def build_organization(self, organization_id: str, raw: Mapping[str, Any]) -> Organization:
        """One of them, with its applications."""
        path: Path = ("organizations", organization_id)
        users = tuple(raw.get("users", ()))
        if "default_model" in raw:
            self.check_choice((*path, "default_model"), raw["default_model"])
        allowed_payers = frozenset(Payer(payer) for payer in raw.get("allowed_payers", Payer.__members__))
        owner = _Owner(organization_id, users, allowed_payers)
        return Organization(
            id=organization_id,
            display_name=raw.get("display_name", organization_id),
            markup_basis_points=int(raw.get("markup_basis_points", 0)),
            default_model=raw.get("default_model", ""),
            users=users,
            allowed_payers=allowed_payers,
            overrides=self._build_overrides((*path, "overrides"), raw.get("overrides", {})),
            personal_overrides_enabled=raw.get("personal_overrides_enabled", False),
            personal_overrides=self._build_personal_overrides(path, users, raw.get("personal_overrides", {})),
            applications={
                application_id: self._build_application((*path, "applications", application_id), owner, application)
                for application_id, application in raw.get("applications", {}).items()
            },
            limits=_build_limits(raw.get("limits", {})),
            user_limits=_build_limits(raw.get("user_limits", {})),
            token_limits=_build_limits(raw.get("token_limits", {})),
        )

    def _provider_key(self, provider_id: str) -> str:
        """What the snapshot knows a provider by: the organization's own one stands above the deployment's."""
        own = f"{self.owner}/providers/{provider_id}"
        return own if own in self.snapshot.providers else provider_id

    def check_choice(self, path: Path, reference: str) -> str:
        """Checks a reference that may also be the free pool."""
        if reference != FREE:
            return self.check_model(path, reference)
        if not self.snapshot.free_models:
            self._complain(path, "there is no free pool; list its models in deployment.free_models")
        return reference

    def check_model(self, path: Path, reference: str) -> str:
        """The id of a model, or the reference itself with a problem recorded."""
        model = self.snapshot.find_model(reference)
        if model is not None:
            return model.id
        is_lenient = any(path[: len(stored)] == stored for stored in self.lenient)
        if reference not in self.declared_models and not is_lenient:
            known = {*self.snapshot.models, *self.snapshot.references}
            self._complain(path, f"there is no model {reference}; {suggest(reference, known)}")
        return reference

    def check_provider(self, path: Path, provider_id: str) -> None:
        """Records a problem where there is no such provider."""
        if provider_id not in self.declared_providers:
            self._complain(path, f"there is no provider {provider_id}; {suggest(provider_id, self.declared_providers)}")

    def _complain(self, path: Path, message: str, *, of_key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, of_key=of_key))

    def _build_application(self, path: Path, owner: "_Owner", raw: Mapping[str, Any]) -> Application:
        payers = tuple(Payer(payer) for payer in raw["payers"]) if "payers" in raw else DEFAULT_PAYERS
        for index, provider_id in enumerate(raw.get("provider_order", ())):
            self.check_provider((*path, "provider_order", index), provider_id)
        if "native_provider" in raw:
            self.check_provider((*path, "native_provider"), raw["native_provider"])
        application = Application(
            name=f"organizations/{owner.organization}/applications/{path[-1]}",
            payers=tuple(payer for payer in payers if payer in owner.allowed_payers),
            payer_failover_on=frozenset(PayerFailoverCause(cause) for cause in raw.get("payer_failover_on", ())),
            default_model=raw.get("default_model", ""),
            allowed_models=tuple(raw.get("allowed_models", ("*",))),
            display_name=raw.get("display_name", str(path[-1])),
            native_provider=self._provider_key(raw["native_provider"]) if "native_provider" in raw else "",
            byok_supported=raw.get("byok_supported", True),
            bindings=self._build_bindings(path, owner, raw.get("bindings", {})),
            provider_order=tuple(map(self._provider_key, raw.get("provider_order", ()))),
            fallbacks=self._build_fallbacks(path, owner, raw),
            contexts={
                name: frozenset(OverrideLayer(layer) for layer in layers)
                for name, layers in raw.get("contexts", {}).items()
            },
            overrides=self._build_overrides((*path, "overrides"), raw.get("overrides", {})),
            allows_uncatalogued=raw.get("allows_uncatalogued", False),
            limits=_build_limits(raw.get("limits", {})),
            max_queue_wait_seconds=float(raw.get("max_queue_wait_seconds", 2.0)),
        )
        self._check_models(path, raw, application)
        return application

    def _check_models(self, path: Path, raw: Mapping[str, Any], application: Application) -> None:
        for index, pattern in enumerate(raw.get("allowed_models", ())):
            is_plain = not any(character in pattern for character in "*?[")
            model = self.snapshot.find_model(pattern)
            is_known = pattern in (self.declared_models if model is None else self.snapshot.models)
            if is_plain and not is_known and path not in self.lenient:
                advice = f"write its id {model.id}" if model is not None else suggest(pattern, self.snapshot.models)
                self._complain((*path, "allowed_models", index), f"there is no model with this id; {advice}")
        if "default_model" in raw:
            model_id = self.check_choice((*path, "default_model"), raw["default_model"])
            if model_id in self.snapshot.models and not application.allows(model_id):
                message = "this model is not in the application's allowed_models; add it there or choose another"
                self._complain((*path, "default_model"), message)

    def _build_overrides(self, path: Path, raw: Mapping[str, str]) -> dict[str, str]:
        for context, reference in raw.items():
            self.check_choice((*path, context), reference)
        return dict(raw)

    def _build_personal_overrides(
        self, path: Path, users: tuple[str, ...], raw: Mapping[str, Mapping[str, str]]
    ) -> dict[str, dict[str, str]]:
        built: dict[str, dict[str, str]] = {}
        for user, overrides in raw.items():
            here = (*path, "personal_overrides", user)
            if user not in users:
                self._complain(
                    here, f"there is no user {user} in this organization; {suggest(user, users)}", of_key=True
                )
            built[user] = self._build_overrides(here, overrides)
        return built

    def _build_bindings(self, path: Path, owner: "_Owner", raw: Mapping[str, str]) -> dict[Payer, str]:
        bindings: dict[Payer, str] = {}
        for key, name in raw.items():
            payer = Payer(key)
            bindings[payer] = name
            fault = self._find_credential_fault(owner, name, payer)
            if fault:
                self._complain((*path, "bindings", key), fault)
        return bindings

    def _find_credential_fault(self, owner: "_Owner", name: str, payer: Payer | None) -> str:
        """What is wrong with a credential's name. `payer` None means any payer that the name itself tells."""
        match = _CREDENTIAL.fullmatch(name)
        if match is None:
            return f"is not a credential's name; write {_show_form(owner, payer)}"
        is_mine = match["organization"] == owner.organization
        if match["organization"] is not None and not is_mine:
            return f"belongs to another organization; write {_show_form(owner, payer)}"
        if match["user"] is not None and match["user"] not in owner.users:
            return f"belongs to a user who is not in this organization; {suggest(match['user'], owner.users)}"
        held_by = Payer.USER_KEY if match["user"] else Payer.ORGANIZATION_KEY if is_mine else None
        if payer is not None and (payer if payer.is_own_key else None) is not held_by:
            return f"cannot serve {payer.value}; write {_show_form(owner, payer)}"
        if match["deployment"]:
            return self._find_deployment_fault(match["credential"], payer)
        return ""

    def _find_deployment_fault(self, credential_id: str, payer: Payer | None) -> str:
        known = self.declared_credentials
        if credential_id not in known:
            return f"there is no deployment credential {credential_id}; {suggest(credential_id, known)}"
        credential = self.document.value.get("deployment_credentials", {}).get(credential_id)
        if credential is not None and payer is not None and payer.value not in credential["payers"]:
            return f"does not serve {payer.value}; add it to deployment_credentials.{credential_id}.payers"
        return ""

    def _build_fallbacks(self, path: Path, owner: "_Owner", raw: Mapping[str, Any]) -> tuple[Route, ...]:
        routes: list[Route] = []
        seen: dict[tuple[str, str, str], str] = {}
        main = self.snapshot.find_model(raw.get("default_model", ""))
        if main is not None:
            seen[main.id, "", ""] = "the default model itself"
        for index, entry in enumerate(raw.get("fallbacks", ())):
            here: Path = (*path, "fallbacks", index)
            provider_id, credential = entry.get("provider", ""), entry.get("credential", "")
            model_id = self.check_model((*here, "model"), entry["model"])
            if provider_id:
                self._check_offer(here, model_id, provider_id)
            fault = self._find_credential_fault(owner, credential, None) if credential else ""
            if fault:
                self._complain((*here, "credential"), fault)
            first = seen.setdefault((model_id, provider_id, credential), f"fallbacks[{index}]")
            if first != f"fallbacks[{index}]":
                self._complain(here, f"is the same route as {first}; remove it")
            on_context = entry.get("on_context_too_long", False)
            settings = build_settings(entry.get("settings", {}))
            provider_key = self._provider_key(provider_id) if provider_id else ""
            weight = entry.get("weight")
            routes.append(Route(entry["model"], provider_key, credential, settings, on_context, weight))
        return tuple(routes)

    def _check_offer(self, here: Path, model_id: str, provider_id: str) -> None:
        self.check_provider((*here, "provider"), provider_id)
        model = self.snapshot.models.get(model_id)
        if model is None or provider_id not in self.declared_providers:
            return
        offering = [endpoint.provider for endpoint in model.endpoints]
        if offering and self._provider_key(provider_id) not in offering:
            message = f"{provider_id} is no endpoint of {model_id}; {suggest(provider_id, offering)}"
            self._complain((*here, "provider"), message)


@dataclass(frozen=True, slots=True)
class _Owner:
    """The organization that an application belongs to."""

    organization: str
    users: tuple[str, ...]
    allowed_payers: frozenset[Payer] = frozenset(Payer)


def _build_limits(raw: Mapping[str, Any]) -> RateLimits:
    # JSON Schema takes 3.0 for an integer.
    return RateLimits(**{key: int(value) for key, value in raw.items()})


def _show_form(owner: _Owner, payer: Payer | None) -> str:
    if payer is Payer.USER_KEY:
        return f"organizations/{owner.organization}/users/{{user}}/credentials/{{credential}}"
    if payer is None or payer is Payer.ORGANIZATION_KEY:
        return f"organizations/{owner.organization}/credentials/{{credential}}"
    return "deployment/credentials/{credential}"
