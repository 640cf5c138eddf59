"""Connecting: to Mews with the settings, to a sandbox without."""

import pandas as pd
import pytest
from raw import ACCESS_TOKEN, CLIENT_TOKEN, RawServer, answer
from support import make_codes

import vouchertools as vt
from vouchertools.errors import InputError, NotFoundError, SettingsError, UnreachableError
from vouchertools.pace import Retry

ENTERPRISES = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]
MONTHS = ("2023-01-01T00:00:00Z", "2023-03-01T00:00:00Z")


def set_mews(monkeypatch: pytest.MonkeyPatch, address: str, **more: str) -> None:
    values = {"PLATFORM_ADDRESS": address, "CLIENT_TOKEN": CLIENT_TOKEN, "ACCESS_TOKEN": ACCESS_TOKEN, **more}
    for name, value in values.items():
        monkeypatch.setenv(f"MEWS_{name}", value)


def test_without_settings_a_sandbox_of_real_campaigns_says_that_it_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with vt.connect() as client:
        assert "embedded sandbox. Nothing done here reaches a hotel." in capsys.readouterr().out
        assert client.environment.startswith("sandbox-")
        assert client.is_sandbox
        assert client.now().date().isoformat() == "2017-11-10"
        assert len(client.vouchers()) == 29
        address = repr(client).split("'")[3]
    with (
        vt.Client(address, "c", "a", retry=Retry(attempts_unanswered=1)) as after,
        pytest.raises(UnreachableError),
    ):
        after.now()


def test_two_sandboxes_are_two_environments() -> None:
    with vt.connect() as one, vt.connect() as other:
        assert one.environment != other.environment


def test_with_settings_it_connects_as_they_say_and_prints_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RawServer(answer()) as server:
        enterprise = "00000000-0000-4000-8000-000000000001"
        set_mews(monkeypatch, server.address, CLIENT="Mine 1.0", ENTERPRISE_ID=enterprise)
        with vt.connect() as client:
            assert client.enterprise_id == enterprise
            assert client.environment == f"127.0.0.1:{server.port}"
        assert capsys.readouterr().out == f"Connected to 127.0.0.1:{server.port}.\n"
        assert b'"Client": "Mine 1.0"' in server.bodies[0]
        assert len(server.bodies) == 1


def test_production_is_named_without_a_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_mews(monkeypatch, "https://api.mews.com/")
    with vt.connect() as client:
        assert client.environment == "production"
    assert capsys.readouterr().out == "Connected to production.\n"


def test_half_set_or_unsafe_settings_never_end_in_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEWS_ACCESS_TOKEN", ACCESS_TOKEN)
    with pytest.raises(SettingsError, match="are not set, though MEWS_ACCESS_TOKEN is"):
        vt.connect()
    set_mews(monkeypatch, "http://api.mews.com")
    with pytest.raises(SettingsError, match="plain http"):
        vt.connect()
    set_mews(monkeypatch, "https://api.mews.com", ENTERPRISE_ID="Hotel")
    with pytest.raises(InputError, match="MEWS_ENTERPRISE_ID: 'Hotel'"):
        vt.connect()


def test_a_sandbox_that_cannot_be_made_says_why() -> None:
    with pytest.raises(InputError, match="no switch 'colour'"):
        vt.Sandbox(colour="red")
    with pytest.raises(InputError, match="vouchers without codes"):
        vt.Sandbox(vouchers=pd.DataFrame({"Id": []}))


def test_a_sandboxs_client_takes_the_options_of_any_client_and_either_token() -> None:
    codes = make_codes(10, vouchers=2, days=30)
    first, second = codes["VoucherId"].unique()
    vouchers = pd.DataFrame({"Id": [first, second], "EnterpriseId": ENTERPRISES})
    with vt.Sandbox(codes, vouchers) as sandbox:
        with sandbox.client(portfolio=True, enterprise_id=sandbox.enterprise_ids[1], settle_s=7.0) as client:
            assert len(client.get_all([first, second], updated=MONTHS)) == 10
            assert client.settle_s == 7.0
            created = client.add(pd.DataFrame({"VoucherId": [second], "Value": ["NEW"]}))
            assert created["VoucherId"].tolist() == [second]
        with sandbox.client() as client:
            assert len(client.vouchers()) == 1


def test_another_sandbox_on_the_same_port_is_refused() -> None:
    with vt.Sandbox(make_codes(3, days=30)) as sandbox:
        client = sandbox.client(retry=Retry(attempts=3, attempts_unanswered=3))
        environment = client.environment
        port = int(sandbox.address.split(":")[-1])
    with vt.Sandbox(make_codes(3, days=30), port=port) as other:
        with pytest.raises(NotFoundError, match="Another server answers"):
            client.delete(other.codes()["Id"].head(1))
        assert len(other.requests) == 1
        assert client.environment == environment
        client.close()
        with other.client() as fresh:
            assert fresh.environment == f"sandbox-{other.instance_id}"
