"""The development authority."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509

from vault_service.devca import main, make_development_certificates

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
FILES = {"ca.pem", "ca-key.pem", "vault.pem", "vault-key.pem", "router.pem", "router-key.pem"}


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_it_makes_what_is_missing_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert {path.name for path in make_development_certificates(home, NOW)} == FILES
    assert make_development_certificates(home, NOW) == []
    assert home.stat().st_mode & 0o777 == 0o700
    for key in home.glob("*-key.pem"):
        assert key.stat().st_mode & 0o777 == 0o600
    for service in ("vault", "router"):
        certificate = load(home / f"{service}.pem")
        certificate.verify_directly_issued_by(load(home / "ca.pem"))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://keyswitch/{service}"]
        assert certificate.not_valid_after_utc - NOW == dt.timedelta(days=30)


def test_a_missing_leaf_is_made_from_the_same_authority(tmp_path: Path) -> None:
    make_development_certificates(tmp_path, NOW)
    authority = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "router.pem").unlink()
    written = make_development_certificates(tmp_path, NOW)
    assert {path.name for path in written} == {"router.pem", "router-key.pem"}
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_what_ends_within_a_day_or_is_broken_is_renewed(tmp_path: Path) -> None:
    make_development_certificates(tmp_path, NOW)
    assert make_development_certificates(tmp_path, NOW + dt.timedelta(days=28, hours=23)) == []
    later = make_development_certificates(tmp_path, NOW + dt.timedelta(days=29, hours=1))
    assert {path.name for path in later} == FILES
    (tmp_path / "vault-key.pem").write_text("broken", encoding="ascii")
    now = NOW + dt.timedelta(days=29, hours=1)
    written = make_development_certificates(tmp_path, now)
    assert {path.name for path in written} == {"vault.pem", "vault-key.pem"}


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--home", str(tmp_path)]) == 0
    assert "vault-key.pem" in capsys.readouterr().out
    assert main(["--home", str(tmp_path)]) == 0
    assert "nothing" in capsys.readouterr().out
