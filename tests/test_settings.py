from pathlib import Path

import pytest

from polyvec.engine.bulk import BulkSettings
from polyvec.errors import InputError
from polyvec.settings import resolve_settings


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('role = "query"\ntruncate = "start"\n')
    settings = resolve_settings(BulkSettings, file, {"truncate": "error", "role": None})
    assert settings == BulkSettings(role="query", truncate="error")


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('instrution = "x"\n')
    with pytest.raises(InputError, match=r"unknown key 'instrution'; did you mean 'instruction'\?"):
        resolve_settings(BulkSettings, file, {})


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("role = \n")
    with pytest.raises(InputError, match=r"s\.toml cannot be read"):
        resolve_settings(BulkSettings, file, {})
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        resolve_settings(BulkSettings, tmp_path / "none.toml", {})
