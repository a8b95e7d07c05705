from pathlib import Path

import pytest

from polyvec.data.generate.settings import RawSettings
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


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('count = "ten"', "count is 'ten'; it must be a whole number."),
        ("count = true", "count is True; it must be a whole number."),
        ("languages = [3]", r"languages is \[3\]; it must be a list, each a text."),
        ("endpoints = 5", "endpoints is 5; it must be a list, each a text or a table."),
        ("prompts = 5", "prompts is 5; it must be a text or a path."),
        ('min_score = "x"', "min_score is 'x'; it must be a number."),
    ],
)
def test_a_value_of_another_kind_is_an_error(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(line)
    with pytest.raises(InputError, match=rf"s\.toml: {words}"):
        resolve_settings(RawSettings, file, {})


def test_values_of_the_right_kind_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        'languages = "Thai"\nmin_score = 1\nprompts = "p"\n[[endpoints]]\nurl = "http://x"\n'
    )
    settings = resolve_settings(RawSettings, file, {"count": 3})
    assert (settings.languages, settings.min_score, settings.count) == ("Thai", 1, 3)


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("role = \n")
    with pytest.raises(InputError, match=r"s\.toml cannot be read"):
        resolve_settings(BulkSettings, file, {})
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        resolve_settings(BulkSettings, tmp_path / "none.toml", {})
