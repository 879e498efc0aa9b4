"""Options that say where a call may go and what is sent there in the provider's own words: of `chat` and `explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer
from keyswitch.router.v1 import route_policy_pb2, settings_pb2
from keyswitch_client import CallOptions

Provider = Annotated[
    list[str] | None,
    typer.Option("--provider", help="Try this provider first. May be repeated, in order.", show_default=False),
]
OnlyProviders = Annotated[bool, typer.Option("--only-providers", help="No other providers, and no fallback routes.")]
Upstream = Annotated[
    list[str] | None,
    typer.Option("--upstream", help="Inside OpenRouter or Vercel: this upstream first. May be repeated, in order."),
]
OnlyUpstreams = Annotated[bool, typer.Option("--only-upstreams", help="Inside OpenRouter or Vercel: no other ones.")]
Budget = Annotated[int | None, typer.Option("--thinking-budget", help="Tokens that it may think.", show_default=False)]
ProviderOptions = Annotated[
    str,
    typer.Option(
        "--options", help="The provider's own options as JSON, with a namespace or without.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class Routes:
    """What was asked for."""

    providers: Sequence[str] = ()
    only_providers: bool = False
    upstreams: Sequence[str] = ()
    only_upstreams: bool = False
    thinking_budget: int | None = None
    provider_options: str = field(default="", repr=False)

    def add_to(self, options: CallOptions) -> None:
        """Puts it into the options of a call, which have none of it yet."""
        if self.providers or self.only_providers:
            options["route_policy"] = route_policy_pb2.RoutePolicy(
                provider_order=[_name(provider) for provider in self.providers],
                allow_fallbacks=False if self.only_providers else None,
            )
        settings = settings_pb2.GenerationSettings()
        if self.upstreams or self.only_upstreams:
            settings.upstream_routing.order[:] = self.upstreams
            if self.only_upstreams:
                settings.upstream_routing.allow_fallbacks = False
        if self.thinking_budget is not None:
            settings.reasoning.budget_tokens = self.thinking_budget
        if self.provider_options:
            settings.provider_options.add(json=self.provider_options)
        if settings != settings_pb2.GenerationSettings():
            options["settings"] = settings


def _name(provider: str) -> str:
    return provider if "/" in provider else f"providers/{provider}"
