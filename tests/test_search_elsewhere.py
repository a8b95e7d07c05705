"""An index opened from another machine: its store by flags, its model at another place."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import orjson
import pytest

from polyvec.errors import InputError
from polyvec.search.place import VARIABLE as INDEXES
from polyvec.search.storage import VARIABLE
from polyvec.search.store import Store
from polyvec.serve.library import Library
from polyvec.serve.settings import ServeSettings
from tests.buckets import Buckets, serving
from tests.command import Command
from tests.live import write_tiny
from tests.streaming_chat import streaming

_numbers = count()


@pytest.fixture(scope="module")
def buckets() -> Iterator[Buckets]:
    with serving() as served:
        yield served


@dataclass
class Team:
    """An index in a bucket, whose store only ``flags`` can reach, and the model that made it."""

    place: str
    flags: tuple[str, ...]
    root: Path
    model: Path

    def moved(self) -> Path:
        """Put the model where another machine has it."""
        return Path(shutil.move(self.model, self.model.with_name("elsewhere")))


@pytest.fixture
def team(buckets: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Command) -> Team:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(name, buckets.environment[name])
    monkeypatch.setenv(VARIABLE, str(tmp_path / "storage.toml"))
    monkeypatch.setenv(INDEXES, str(tmp_path / "indexes"))
    bucket = f"elsewhere-{next(_numbers)}"
    buckets.client().create_bucket(Bucket=bucket)
    options = (f"endpoint={buckets.url}", "allow_http=true", "region=us-east-1")
    flags = tuple(word for option in options for word in ("--storage-option", option))
    root = tmp_path / "notes"
    root.mkdir()
    (root / "router.txt").write_text("Hold the reset button of the router for ten seconds.")
    made = Team(f"s3://{bucket}/index", flags, root, write_tiny(tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    how = ("--index", made.place, *flags, "--model", "./model", "--chunk-tokens", "40")
    done = run("index", root, *how)
    assert (done.code, "1 added" in done.out) == (0, True), done.err
    monkeypatch.chdir(root)  # where ./model is nothing
    return made


def options_of(team: Team) -> dict[str, str]:
    return dict(option.split("=", 1) for option in team.flags[1::2])


def test_every_command_takes_options_of_the_store(run: Command, team: Team) -> None:
    reached = ("--index", team.place, *team.flags)
    found = run("search", "router", *reached, "--json")
    assert orjson.loads(found.out)["results"][0]["path"] == "notes/router.txt", found.err
    with streaming("Hold the reset button [1].") as chat:
        to = ("--chat-url", chat.url, "--chat-model", "m", "--min-cosine", "-1")
        answered = run("ask", "How is the router reset?", *reached, *to)
    assert "Hold the reset button [1]." in answered.out, answered.err
    tools = run("mcp", *reached)  # the input has ended already
    assert (tools.code, f"Serving {team.place} to an assistant" in tools.err) == (0, True)
    checked = run("serve", team.model, "--port", "0", *reached, "--check")
    assert (checked.code, "ready to serve" in checked.out) == (0, True), checked.err


@pytest.mark.parametrize(
    "command",
    [
        ("search", "x"),
        ("ask", "x", "--chat-url", "http://127.0.0.1:9/v1", "--chat-model", "m"),
        ("mcp",),
        ("serve", "--check", "--port", "0"),
    ],
)
def test_wrong_options_are_refused(run: Command, tmp_path: Path, command: tuple[str, ...]) -> None:
    def said(*flags: str, index: str = "s3://bucket/x") -> str:
        done = run(*command, "--index", index, *flags)
        assert done.code == 2, done.err
        return done.err

    assert "did you mean 'endpoint'?" in said("--storage-option", "endpont=x")
    assert "other users of this machine" in said("--storage-option", "secret_access_key=x")
    plain = ("--storage-option", "endpoint=http://minio.example")
    assert "allow_http=true" in said(*plain)
    (tmp_path / "here" / "facts.lance").mkdir(parents=True)
    assert "--storage-option is for" in said(*plain, index=str(tmp_path / "here"))


def test_a_server_tells_the_store_of_object_stores_alone(tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "facts.lance").mkdir(parents=True)
    stated = ("endpoint=https://minio.example",)
    settings = ServeSettings(index=(str(here), "s3://bucket/x"), storage_option=stated)
    library = Library(settings, None)  # type: ignore[arg-type]
    known = {name: index.storage_options for name, index in library.indexes.items()}
    assert known == {"here": {}, "x": {"endpoint": "https://minio.example"}}
    with pytest.raises(InputError, match="write a list"):
        ServeSettings(storage_option="endpoint=x")  # type: ignore[arg-type]


def test_the_model_may_lie_elsewhere_and_must_be_the_same(
    run: Command, team: Team, tmp_path: Path
) -> None:
    recorded = Store.open(team.place, storage_options=options_of(team)).info
    assert recorded.model == str(team.model), "a path that was relative would be found nowhere"
    here, reached = team.moved(), ("--index", team.place, *team.flags)
    for command in (("search", "router"), ("index", team.root)):
        missing = run(*command, *reached)
        assert missing.code == 1
        assert f"was made with the model {team.model} (fingerprint" in missing.err
        assert "Say where it is here, with --model" in missing.err
    found = run("search", "router", *reached, "--model", here, "--json")
    assert orjson.loads(found.out)["results"][0]["cosine"] is not None, found.err
    (team.root / "more.txt").write_text("More about the router.")
    assert "1 added" in run("index", team.root, *reached, "--model", here).out
    other = run("search", "router", *reached, "--model", write_tiny(tmp_path / "other", seed=7))
    assert (other.code, "their vectors cannot be compared" in other.err) == (1, True)
    gone = run("search", "router", *reached, "--model", tmp_path / "none")
    assert (gone.code, "no alias and no path" in gone.err) == (1, True)


def test_a_lasting_name_is_recorded_by_a_migration_that_embeds_nothing(
    run: Command, team: Team
) -> None:
    here, reached = team.moved(), ("--index", team.place, *team.flags)
    done = run("index", team.root, *reached, "--model", here, "--migrate", "--json")
    assert (done.code, orjson.loads(done.out)["embedded_chunks"]) == (0, 0), done.err
    assert run("search", "router", *reached).code == 0
    assert Store.open(team.place, storage_options=options_of(team)).info.model == str(here)
