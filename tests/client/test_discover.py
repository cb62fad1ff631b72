"""Discovery of the hub and its token, and the hubs to which the token is sent."""

from pathlib import Path

import pytest

from edgefleet.base.errors import NetworkError, OperatorError
from edgefleet.client.discover import HubAccess, discover
from edgefleet.client.places import default_data_dir
from edgefleet.protocol.wire import encode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data folder of a hub on this machine."""
    (tmp_path / "hub.json").write_bytes(encode({"url": "http://10.0.0.7:8400", "pid": 5, "x": 1}))
    (tmp_path / "operator.token").write_text("efo_own\n")
    return tmp_path


def look(folder: Path, **said: str) -> HubAccess:
    names = {"EDGEFLEET_HUB", "EDGEFLEET_TOKEN"}
    environ = {name: value for name, value in said.items() if name in names}
    given = {name: value for name, value in said.items() if name not in names}
    return discover(
        url=given.get("url"), token=given.get("token"), data_dir=folder, environ=environ
    )


def test_the_folder_holds_both(folder: Path) -> None:
    found = look(folder)
    assert (found.url, found.token) == ("http://10.0.0.7:8400", "efo_own")
    assert found.token_from == str(folder / "operator.token")


def test_what_is_said_wins_over_the_variable_and_that_over_the_folder(folder: Path) -> None:
    variables = {"EDGEFLEET_HUB": "http://variable", "EDGEFLEET_TOKEN": "efo_variable"}
    found = look(folder, **variables)
    assert (found.url, found.token) == ("http://variable", "efo_variable")
    found = look(folder, url="http://said", token="efo_said", **variables)
    assert (found.url, found.token) == ("http://said", "efo_said")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://localhost:9", "http://10.0.0.7:8400/", "unix:/run/hub"]
)
def test_the_folders_token_goes_to_its_hub_and_to_this_machine(folder: Path, url: str) -> None:
    assert look(folder, url=url).token == "efo_own"


@pytest.mark.parametrize(
    "url", ["http://evil.example:8400", "http://10.0.0.7:9", "http://127.0.0.1.evil"]
)
def test_the_folders_token_goes_to_no_other_host(folder: Path, url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        look(folder, url=url)
    assert (caught.value.code, caught.value.field) == ("unauthenticated", "token")


def test_no_hub_is_a_network_error_that_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NetworkError) as caught:
        look(tmp_path)
    assert caught.value.code == "unreachable"
    assert "edgefleet serve" in caught.value.hint


def test_no_token_says_how_to_give_one(folder: Path) -> None:
    (folder / "operator.token").unlink()
    with pytest.raises(OperatorError) as caught:
        look(folder)
    assert caught.value.code == "unauthenticated"
    assert "EDGEFLEET_TOKEN" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"url": 3}', b'{"url": "ftp://x"}'])
def test_a_damaged_hub_file_is_told(folder: Path, data: bytes) -> None:
    (folder / "hub.json").write_bytes(data)
    with pytest.raises(OperatorError) as caught:
        look(folder)
    assert caught.value.code == "setting_invalid"


def test_the_folder_is_the_variables_else_the_users() -> None:
    assert default_data_dir({"EDGEFLEET_DATA_DIR": "/srv/hub"}) == Path("/srv/hub")
    assert default_data_dir({"XDG_DATA_HOME": "/data"}) == Path("/data/edgefleet/hub")
    assert default_data_dir({}) == Path("~/.local/share/edgefleet/hub").expanduser()
