"""What keeps a router from starting is said as what to mend."""

from pathlib import Path

import pytest

from router_service.app import serve
from router_service.config import Config
from vault_service.devca import main as make_certificates


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "keyswitch.yaml").write_text("deployment: {}")
    return Config.below(tmp_path)


async def test_certificates_that_are_missing(config: Config) -> None:
    with pytest.raises(RuntimeError) as caught:
        await serve(config)
    assert str(caught.value) == (
        f"{config.authority} is missing; name yours with KEYSWITCH_TLS_*, or for development "
        f"`python -m vault_service.devca --home {config.home}` makes it"
    )


@pytest.mark.parametrize("name", ["router-key.pem", "router.pem", "ca.pem"])
async def test_certificates_that_do_not_fit_together(config: Config, name: str) -> None:
    assert make_certificates(["--home", str(config.home)]) == 0
    other = "vault-key.pem" if name == "router-key.pem" else "keyswitch.yaml"
    (config.home / name).write_bytes((config.home / other).read_bytes())
    with pytest.raises(RuntimeError, match=r"no readable pair, .* look at KEYSWITCH_TLS_\*"):
        await serve(config)
