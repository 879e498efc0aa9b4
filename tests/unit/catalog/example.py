"""The configuration that the documentation shows."""

# ruff: noqa: E501 - the example is kept literally

EXAMPLE = """\
deployment: {name: keyswitch, default_model: practice/echo, byok_enabled: true}
organizations:
  demo:
    markup_basis_points: 500
    default_model: practice/echo
    users: [ada]
    applications:
      chat:
        payers: [USER_KEY, ORGANIZATION_KEY, SHARED_KEY, CREDITS]
        payer_failover_on: []
        default_model: practice/echo
        allowed_models: ["*"]
      claude:
        native_provider: anthropic
        byok_supported: true
        payers: [ORGANIZATION_KEY, CREDITS]
        default_model: anthropic/claude-sonnet-4.6
        bindings: {ORGANIZATION_KEY: organizations/demo/credentials/anthropic-main}
providers:
  practice: {dialect: openai_chat, base_url: "http://127.0.0.1:8780/v1", auth: bearer, allowed_private_networks: [127.0.0.1/32]}
  anthropic: {dialect: anthropic_messages, base_url: "https://api.anthropic.com", auth: x-api-key}
models:
  practice/echo:
    aliases: [echo]
    endpoints: [{provider: practice, upstream_model: echo}]
    price: {input_usd_per_million: "0.10", output_usd_per_million: "0.40", checked: 2026-11-21}
deployment_credentials:
  practice: {provider: practice, payers: [SHARED_KEY, CREDITS]}
"""
