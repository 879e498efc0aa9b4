"""Broken files, each with the exact message: where it is, what is wrong, what to do."""

import pytest

from router_service.catalog.loader import ConfigurationError, load_snapshot
from tests.unit.catalog.example import EXAMPLE

_ID_HELP = (
    "an id has 3 to 63 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen"
)
_CHAT = "organizations.demo.applications.chat"
_CLAUDE = "organizations.demo.applications.claude"
_PRACTICE = "providers.practice"
_ECHO = "models.practice/echo"
_BASE_URL = '"https://api.anthropic.com"'

# ruff: noqa: E501 - a message is one line, here as it is there
# What is changed in the example, into what, and what is then said.
BROKEN = [
    (
        _BASE_URL,
        '"https://2852039166/v2"',
        "21:54: providers.anthropic.base_url: has a number for a host; write the address out, such as 10.1.2.3",
    ),
    (
        _BASE_URL,
        '"https://0x7f.0x1"',
        "21:54: providers.anthropic.base_url: has a number for a host; write the address out, such as 10.1.2.3",
    ),
    (
        "http://127.0.0.1:8780",
        "http://8.8.8.8",
        f"20:46: {_PRACTICE}.base_url: would send keys unencrypted; use https (http is only for hosts in allowed_private_networks)",
    ),
    (
        _BASE_URL,
        '"https://api.anthropic.com/v1/"',
        "21:54: providers.anthropic.base_url: ends in /v1, which this dialect adds itself; remove it",
    ),
    (
        "aliases: [echo]",
        "aliases: [echo",
        "25:14: this is not YAML: expected ',' or ']', but got ':' (in what begins in line 24)",
    ),
    (
        "users: [ada]",
        "users: [ada]\n    users: [bob]",
        "7:5: organizations.demo.users: this key stands here a second time (first in line 6); keep one of them",
    ),
    (
        "organizations:",
        "organizations: &all",
        "2:16: anchors (&name) are not read here; write the value out where it is needed",
    ),
    ("users: [ada]", "users: *all", "6:12: organizations.demo: aliases (*name) are not read here; write the value out"),
    ("name: keyswitch", "name: !!str keyswitch", "1:20: deployment: tags (!name) are not read here; remove it"),
    (
        "markup_basis_points: 500",
        "markup_basis_points: 1e400",
        "4:26: organizations.demo: this number is too large; put a text in quotes",
    ),
    (
        "deployment_credentials:",
        "---\ndeployment_credentials:",
        "27:1: only one document is read; remove the '---' and what follows",
    ),
    ("users: [ada]", "1: [ada]", "6:5: organizations.demo: a key is text; put it in quotes"),
    ("providers:\n", "provider:\n", "19:1: provider: there is no such key here; did you mean providers?"),
    (
        "allowed_models:",
        "allowed_model:",
        f"12:9: {_CHAT}.allowed_model: there is no such key here; did you mean allowed_models or default_model?",
    ),
    (
        "byok_enabled: true",
        'byok_enabled: "true"',
        "1:75: deployment.byok_enabled: must be true or false, not a text: write it without quotes",
    ),
    (
        "[USER_KEY, ORG",
        "[USERKEY, ORG",
        f"9:18: {_CHAT}.payers[0]: must be one of USER_KEY, ORGANIZATION_KEY, SHARED_KEY, CREDITS, FREE; did you mean USER_KEY?",
    ),
    (
        "payers: [ORGANIZATION_KEY, CREDITS]",
        "payers: [CREDITS, CREDITS]",
        f"16:17: {_CLAUDE}.payers: names something twice; keep one of them",
    ),
    ("payers: [ORGANIZATION_KEY, CREDITS]", "payers: []", f"16:17: {_CLAUDE}.payers: must not be empty"),
    ("500", "-1", "4:26: organizations.demo.markup_basis_points: must be at least 0"),
    ("500", "100001", "4:26: organizations.demo.markup_basis_points: must be at most 100000"),
    ("500", "2.5", "4:26: organizations.demo.markup_basis_points: must be a whole number, not a fraction"),
    ("  demo:", "  De:", f"3:3: organizations.De: is not well formed: {_ID_HELP}"),
    ("[ada]", "[ada, b]", f"6:18: organizations.demo.users[1]: is not well formed: {_ID_HELP}"),
    (
        "models:\n",
        "models:\n  echo: {aliases: [other]}\n",
        "23:3: models.echo: is not well formed: a model id is vendor/model in lower case, such as anthropic/claude-sonnet-4.6",
    ),
    (
        "openai_chat",
        "openai_caht",
        f"20:23: {_PRACTICE}.dialect: must be one of openai_chat, openai_responses, anthropic_messages, gemini, bedrock_converse, ollama_chat; did you mean openai_chat?",
    ),
    ("dialect: openai_chat, ", "", f"20:3: {_PRACTICE}: must have dialect"),
    (
        "auth: bearer",
        "auth: bearer, headers: {Authorization: x}",
        f"20:98: {_PRACTICE}.headers.Authorization: is set by the router alone; remove it (keys are stored through CredentialService)",
    ),
    (
        "auth: bearer",
        'auth: bearer, headers: {X-A: "a\\r\\nb"}',
        f"20:103: {_PRACTICE}.headers.X-A: is not well formed: a header's value is printable ASCII without line breaks or spaces at its ends, in quotes",
    ),
    (
        '"http://127.0.0.1:8780/v1"',
        '"127.0.0.1:8780"',
        f"20:46: {_PRACTICE}.base_url: a base URL is absolute and begins with https:// or http://",
    ),
    (
        '"http://127.0.0.1:8780/v1"',
        '"http://10.0.0.9/v1"',
        f"20:46: {_PRACTICE}.base_url: leads to a private address; if it is yours, set allowed_private_networks: [10.0.0.9/32]",
    ),
    (
        _BASE_URL,
        '"https://api.anthropic.com?x=1"',
        "21:54: providers.anthropic.base_url: a base URL has no query and no fragment",
    ),
    (
        _BASE_URL,
        '"https://u:p@api.anthropic.com"',
        "21:54: providers.anthropic.base_url: a base URL holds no user and no password; keys go to the credential service",
    ),
    (
        _BASE_URL,
        '"http://api.anthropic.com"',
        "21:54: providers.anthropic.base_url: would send keys unencrypted; use https (http is only for hosts in allowed_private_networks)",
    ),
    (
        _BASE_URL,
        '"https://169.254.169.254"',
        "21:54: providers.anthropic.base_url: leads to a link-local or metadata address, which is never allowed",
    ),
    (
        _BASE_URL,
        '"https://[::ffff:169.254.169.254]"',
        "21:54: providers.anthropic.base_url: leads to a link-local or metadata address, which is never allowed",
    ),
    (
        _BASE_URL,
        '"https://metadata.google.internal"',
        "21:54: providers.anthropic.base_url: leads to a link-local or metadata address, which is never allowed",
    ),
    (
        _BASE_URL,
        '"https://localhost:1"',
        "21:54: providers.anthropic.base_url: leads to this machine; if that is meant, set allowed_private_networks: [127.0.0.1/32]",
    ),
    (
        "[127.0.0.1/32]",
        "[0.0.0.0/0]",
        f"20:115: {_PRACTICE}.allowed_private_networks[0]: reaches link-local or metadata addresses, which are never allowed; name a smaller network",
    ),
    (
        "[127.0.0.1/32]",
        '["::/0"]',
        f"20:115: {_PRACTICE}.allowed_private_networks[0]: reaches link-local or metadata addresses, which are never allowed; name a smaller network",
    ),
    (
        "[127.0.0.1/32]",
        "[8.8.8.0/24]",
        f"20:115: {_PRACTICE}.allowed_private_networks[0]: is not within the private ranges; public addresses need no entry, so remove it",
    ),
    (
        "[127.0.0.1/32]",
        "[127.0.0.1/8]",
        f"20:115: {_PRACTICE}.allowed_private_networks[0]: is not a network in CIDR notation such as 10.1.0.0/16 or 127.0.0.1/32",
    ),
    (
        "{provider: practice, up",
        "{provider: practise, up",
        f"25:28: {_ECHO}.endpoints[0].provider: there is no provider practise; did you mean practice?",
    ),
    ("    endpoints: [{provider: practice, upstream_model: echo}]\n", "", f"23:3: {_ECHO}: must have endpoints"),
    (
        "models:\n",
        "models:\n  anthropic/claude-sonnet-4.6: {aliases: [echo]}\n",
        f"25:15: {_ECHO}.aliases[0]: echo already means anthropic/claude-sonnet-4.6; give one of the two another alias",
    ),
    (
        "models:\n",
        "models:\n  anthropic/claude-sonnet-4.6: {aliases: [practice/echo]}\n",
        '23:43: models["anthropic/claude-sonnet-4.6"].aliases[0]: practice/echo already means practice/echo; give one of the two another alias',
    ),
    ('"0.10"', "0.10", f"26:36: {_ECHO}.price.input_usd_per_million: must be a text, not a number: put it in quotes"),
    (
        '"0.10"',
        '"-0.10"',
        f'26:36: {_ECHO}.price.input_usd_per_million: is not well formed: a price is a decimal number of USD, not negative, with at most 9 decimals, in quotes: "0.10"',
    ),
    (
        '"0.10"',
        '"0.0000000001"',
        f'26:36: {_ECHO}.price.input_usd_per_million: is not well formed: a price is a decimal number of USD, not negative, with at most 9 decimals, in quotes: "0.10"',
    ),
    (", checked: 2026-11-21", "", f"26:5: {_ECHO}.price: must have checked"),
    ("2026-11-21", "2026-02-30", f"26:85: {_ECHO}.price.checked: there is no such day"),
    ("2026-11-21", "last week", f"26:85: {_ECHO}.price.checked: is not well formed: a date is written as 2026-11-21"),
    (
        "{name: keyswitch, default_model: practice/echo",
        "{default_model: sonet-4.6",
        "1:29: deployment.default_model: there is no model sonet-4.6; did you mean sonnet-4.6 or sonnet-4.5 or sonnet-4?",
    ),
    (
        'allowed_models: ["*"]',
        "allowed_models: [practice/*, echo]",
        f"12:38: {_CHAT}.allowed_models[1]: there is no model with this id; write its id practice/echo",
    ),
    (
        'allowed_models: ["*"]',
        "allowed_models: [anthropic/*]",
        f"11:24: {_CHAT}.default_model: this model is not in the application's allowed_models; add it there or choose another",
    ),
    (
        "native_provider: anthropic",
        "native_provider: antropic",
        f"14:26: {_CLAUDE}.native_provider: there is no provider antropic; did you mean anthropic or zai-anthropic or vertex-anthropic?",
    ),
    (
        "organizations/demo/credentials",
        "organizations/acme/credentials",
        f"18:38: {_CLAUDE}.bindings.ORGANIZATION_KEY: belongs to another organization; write organizations/demo/credentials/{{credential}}",
    ),
    (
        "organizations/demo/credentials/",
        "credentials/",
        f"18:38: {_CLAUDE}.bindings.ORGANIZATION_KEY: is not a credential's name; write organizations/demo/credentials/{{credential}}",
    ),
    (
        "organizations/demo/credentials/",
        "organizations/demo/users/ada/credentials/",
        f"18:38: {_CLAUDE}.bindings.ORGANIZATION_KEY: cannot serve ORGANIZATION_KEY; write organizations/demo/credentials/{{credential}}",
    ),
    (
        "organizations/demo/credentials/",
        "organizations/demo/users/bob/credentials/",
        f"18:38: {_CLAUDE}.bindings.ORGANIZATION_KEY: belongs to a user who is not in this organization; one of: ada",
    ),
    (
        "{ORGANIZATION_KEY: organizations/demo/credentials/anthropic-main}",
        "{CREDITS: deployment/credentials/practise}",
        f"18:29: {_CLAUDE}.bindings.CREDITS: there is no deployment credential practise; did you mean practice?",
    ),
    (
        "{ORGANIZATION_KEY: organizations/demo/credentials/anthropic-main}",
        "{FREE: deployment/credentials/practice}",
        f"18:26: {_CLAUDE}.bindings.FREE: does not serve FREE; add it to deployment_credentials.practice.payers",
    ),
    (
        "payer_failover_on: []",
        "fallbacks: [{model: nowhere}]",
        f"10:29: {_CHAT}.fallbacks[0].model: there is no model nowhere; one of: ",
    ),
    (
        "payer_failover_on: []",
        "fallbacks: [{model: echo}]",
        f"10:21: {_CHAT}.fallbacks[0]: is the same route as the default model itself; remove it",
    ),
    (
        "payer_failover_on: []",
        "fallbacks: [{model: opus-4.7}, {model: anthropic/claude-opus-4.7}]",
        f"10:40: {_CHAT}.fallbacks[1]: is the same route as fallbacks[0]; remove it",
    ),
    (
        "payer_failover_on: []",
        "fallbacks: [{model: opus-4.7, provider: openai}]",
        f"10:49: {_CHAT}.fallbacks[0].provider: openai is no endpoint of anthropic/claude-opus-4.7; one of: "
        "anthropic, bedrock, bedrock-anthropic, vercel",
    ),
    (
        "payer_failover_on: []",
        "provider_order: [groqq]",
        f"10:26: {_CHAT}.provider_order[0]: there is no provider groqq; did you mean groq?",
    ),
    (
        "{provider: practice, payers",
        "{provider: nobody, payers",
        "28:24: deployment_credentials.practice.provider: there is no provider nobody; one of: ",
    ),
    (
        "payers: [SHARED_KEY, CREDITS]}",
        "payers: [USER_KEY]}",
        "28:43: deployment_credentials.practice.payers[0]: must be one of SHARED_KEY, CREDITS, FREE",
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), BROKEN)
def test_message(old: str, new: str, expected: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(EXAMPLE.replace(old, new, 1), source="keyswitch.yaml")
    message = str(caught.value)
    if expected.endswith("one of: "):
        assert message.startswith(f"keyswitch.yaml:{expected}")
        assert "\n" not in message
    else:
        assert message == f"keyswitch.yaml:{expected}"


def test_every_entry_of_a_broken_section_is_not_blamed_too() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(EXAMPLE.replace("providers:\n", "providers: 3\nproviders_:\n"), source="f")
    assert [problem.path for problem in caught.value.problems] == ["providers", "providers_"]


def test_a_reference_to_a_faulty_entry_is_not_a_second_problem() -> None:
    text = EXAMPLE.replace("{provider: practice, payers", "{provider: practice, plan: x, payers")
    text = text.replace("bindings: {ORG", "bindings: {CREDITS: deployment/credentials/practice, ORG")
    text = text.replace("SHARED_KEY, CREDITS]}", "SHARED_KEY, CREDITS, GOLD]}").replace(
        "default_model: practice/echo", "default_model: echo"
    )
    text = text.replace("upstream_model: echo", "upstream_model: 5").replace("auth: bearer", "auth: basic")
    with pytest.raises(ConfigurationError) as caught:
        load_snapshot(text, source="f")
    assert [problem.path for problem in caught.value.problems] == [
        "providers.practice.auth",
        "models.practice/echo.endpoints[0].upstream_model",
        "deployment_credentials.practice.plan",
        "deployment_credentials.practice.payers[2]",
    ]


def test_a_pasted_key_is_named_by_its_place_alone() -> None:
    secret = "sk-canary-0123456789"
    for old, new in (
        ("auth: bearer", f"auth: bearer, api_key: {secret}"),
        ("auth: bearer", f"auth: {secret}"),
        ("auth: bearer", f"auth: bearer, headers: {{X-Api-Key: {secret}}}"),
        ("http://127.0.0.1", f"http://user:{secret}@127.0.0.1"),
        ("organizations/demo/credentials/anthropic-main", secret),
        ('"0.10"', secret),
        ("users: [ada]", f"users: [{secret}"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load_snapshot(EXAMPLE.replace(old, new), source="f")
        assert secret not in str(caught.value)


def test_depth_and_length_are_bounded() -> None:
    for text in ("[" * 40, "{a: " * 40, "a: " + "[" * 40 + "]" * 40):
        with pytest.raises(ConfigurationError, match="nested deeper than 32 levels"):
            load_snapshot(text, source="f")
    with pytest.raises(ConfigurationError, match="longer than"):
        load_snapshot("#" * (1 << 20) + "#", source="f")
