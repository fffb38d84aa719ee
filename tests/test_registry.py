"""Look-up by name, with a user's package beside the built-in ones."""

import pytest

from limbeck.errors import ConfigError
from limbeck.registry import lookup, names

BUILTIN = {"one": int, "two": float}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package that registers `other` and `broken` under limbeck.things."""
    folder = tmp_path / "mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[limbeck.things]\nother = collections:OrderedDict\nbroken = no_such_module:X\n"
        "one = collections:Counter\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_builtin_name_is_found():
    assert lookup("things", BUILTIN, "two") is float


def test_a_users_own_is_found_and_listed_after_the_builtin_ones(package):
    assert lookup("things", BUILTIN, "other").__name__ == "OrderedDict"
    assert names("things", BUILTIN) == ("one", "two", "broken", "other")


def test_a_package_cannot_take_over_a_builtin_name(package):
    assert lookup("things", BUILTIN, "one") is int


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'two'"):
        lookup("things", BUILTIN, "tvo")


def test_an_unknown_name_far_from_all_lists_them():
    with pytest.raises(ConfigError, match=r"Known: one, two\."):
        lookup("things", BUILTIN, "zzzzzz")


def test_a_package_that_cannot_be_loaded_is_named(package):
    with pytest.raises(ConfigError, match="no_such_module:X"):
        lookup("things", BUILTIN, "broken")
