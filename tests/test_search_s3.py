"""A team's index on S3: several writers and readers at once, nothing lost, doubled or told."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import orjson
import pytest

from polyvec.engine.embedder import Embedder
from polyvec.errors import IndexMismatchError, InputError, StorageError, TurnLostError
from polyvec.search import sources, turns
from polyvec.search.database import connect
from polyvec.search.index import Report, open_index, update
from polyvec.search.migrate import migrated
from polyvec.search.rows import ChunkSettings
from polyvec.search.runs import forget_source, writers
from polyvec.search.settings import ReadSettings
from polyvec.search.storage import VARIABLE, stated_options, storage_options
from polyvec.search.store import Store
from polyvec.search.turns import Turns, folder_turn
from tests.buckets import KEY, SECRET, Buckets, serving
from tests.command import Command

CUT = ChunkSettings(40, 0)
_numbers = count()


@pytest.fixture(scope="module")
def buckets() -> Iterator[Buckets]:
    with serving() as served:
        yield served


@pytest.fixture
def place(buckets: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty bucket, and the environment of somebody who may use it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in buckets.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "storage.toml"))
    bucket = f"team-{next(_numbers)}"
    buckets.client().create_bucket(Bucket=bucket)
    return f"s3://{bucket}/index"


def written(folder: Path, topic: str, files: int = 4) -> Path:
    folder.mkdir()
    for n in range(files):
        (folder / f"{n}.txt").write_text(f"Text number {n} is about {topic}, and {n * n}.")
    return folder


Index = Callable[..., Report]


@pytest.fixture
def index(tiny: Embedder, place: str) -> Index:
    def run(root: Path, source: str | None = None) -> Report:
        store = open_index(root, tiny, "tiny", place, CUT, source)
        return update(store, tiny, ReadSettings())

    return run


WRITER = """
import sys
from pathlib import Path
import polyvec.search.batch as batch
batch._FIRST_TOKENS = batch._LEAST_TOKENS = batch._MOST_TOKENS = 60
batch._COMPACT_EVERY = 4
import torch
torch.set_num_threads(1)
from polyvec.engine.embedder import load
from polyvec.search.index import open_index, update
from polyvec.search.rows import ChunkSettings
from polyvec.search.settings import ReadSettings
root, model, place, source = sys.argv[1:]
embedder = load(model, precision="fp32")
store = open_index(Path(root), embedder, "tiny", place, ChunkSettings(40, 0), source)
update(store, embedder, ReadSettings(), lambda p: print(p.tokens, flush=True))
"""


def writer(root: Path, model: Path, place: str, source: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), str(model), place, source]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check_each_once(place: str, expected: dict[str, int]) -> None:
    """Compare documents by source with what is expected; every chunk is there, and once."""
    store = Store.open(place)
    documents = store.documents()
    by_source = [document.path.partition("/")[0] for document in documents]
    assert {name: by_source.count(name) for name in set(by_source)} == expected
    assert store.count() == len(store.chunk_ids()) == sum(d.chunks for d in documents)
    assert store.doubled_ids() == []


def test_a_folder_is_indexed_searched_and_listed_and_no_secret_is_told(
    run: Command, place: str, buckets: Buckets, tmp_path: Path, tiny_folder: Path
) -> None:
    root = written(tmp_path / "notes", "router resets", 2)
    made = run("index", root, "--index", place, "--model", tiny_folder, "--chunk-tokens", "40")
    assert (made.code, "2 added" in made.out) == (0, True), made.err
    found = run("search", "resets", "--index", place, "--json")
    assert found.code == 0, found.err
    paths = {each["path"] for each in orjson.loads(found.out)["results"]}
    assert paths == {"notes/0.txt", "notes/1.txt"}
    status = orjson.loads(run("index", root, "--index", place, "--status", "--json").out)
    assert status["sources"] == {"notes": [sources.place_of(root)]}
    assert (status["writers"], status["documents"]) == ({}, {"indexed": 2})
    said = "".join(each.out + each.err for each in (made, found))
    bucket = place.split("/")[2]
    kept = b"".join(buckets.objects(bucket).values())
    assert kept
    for secret in (KEY, SECRET):
        assert secret not in said + str(status)
        assert secret.encode() not in kept


def test_three_write_at_once_and_two_of_them_one_share_while_a_fourth_reads(
    place: str, tmp_path: Path, tiny_folder: Path, index: Index
) -> None:
    anna, share = (written(tmp_path / name, name, 6) for name in ("anna", "share"))
    index(written(tmp_path / "first", "what was there before", 1), "first")
    jobs = ((anna, "anna"), (share, "share"), (share, "share"))
    runs = [writer(root, tiny_folder, place, name) for root, name in jobs]
    reader, seen = Store.open(place), 0
    while any(process.poll() is None for process in runs):
        fixed = reader.snapshot()
        ids = [hit.chunk.chunk_id for hit in fixed.search_text("text")]
        assert len(fixed.vectors_of(ids)) == len(ids)
        assert fixed.count() >= seen
        seen = fixed.count()
        time.sleep(0.5)
    said = [process.communicate()[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0]
    assert sorted(map(bool, said)) == [False, True, True]  # one found its share done by the other
    check_each_once(place, {"first": 1, "anna": 6, "share": 6})
    assert len(reader.search_text("anna", 20)) == 6
    assert index(anna, "anna").unchanged == 6


def test_a_killed_run_is_gone_on_with(
    place: str,
    tmp_path: Path,
    tiny_folder: Path,
    tiny: Embedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = written(tmp_path / "share", "shared things", 6)
    process = writer(root, tiny_folder, place, "share")
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    store = open_index(root, tiny, "tiny", place, source="share")
    assert list(writers(store)) == ["source share"]
    told: list[str] = []
    monkeypatch.setattr(turns, "PATIENCE_S", 1.0)
    update(store, tiny, ReadSettings(), tell=told.append)
    assert len(told) == 1
    assert f"process {process.pid}, at work on 'source share'" in told[0]
    check_each_once(place, {"share": 6})
    assert writers(store) == {}


def test_folders_of_one_name_do_not_replace_each_other(
    place: str, tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mine = written(tmp_path / "a" / "docs", "mine", 2)
    theirs = written(tmp_path / "b" / "docs", "theirs", 1)
    index(mine)
    with pytest.raises(InputError, match=r"has a source 'docs' already.*give it a name of its own"):
        index(theirs)
    (theirs / "0.txt").rename(theirs / "other.txt")
    with pytest.raises(InputError, match="none of the files of the source 'docs'"):
        index(theirs, "docs")
    index(theirs, "theirs")
    assert index(mine).unchanged == 2
    check_each_once(place, {"docs": 2, "theirs": 1})
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    with pytest.raises(InputError, match=r"If .* is the same folder, say so: --source docs"):
        index(mine)  # the same path on another machine
    assert index(mine, "docs").unchanged == 2  # the same share
    assert index(mine).unchanged == 2
    assert forget_source(Store.open(place), "docs", print) == 2
    check_each_once(place, {"theirs": 1})
    with pytest.raises(InputError, match="has no source 'docs'; it has: theirs"):
        forget_source(Store.open(place), "docs", print)


def test_doubled_chunks_are_mended(place: str, tmp_path: Path, index: Index) -> None:
    root = written(tmp_path / "docs", "things", 2)
    index(root)
    store = Store.open(place)
    store._chunks.add(store._chunks.search().limit(1).to_arrow().select(store._chunks.schema.names))
    assert len(store.doubled_ids()) == 1
    index(root)
    check_each_once(place, {"docs": 2})


def test_a_migration_waits_for_writers_and_they_notice_it(
    place: str, tmp_path: Path, tiny: Embedder, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = written(tmp_path / "docs", "things", 1)
    index(root)
    late = open_index(root, tiny, "tiny", place)
    taken = Turns(late.database).take("source docs", print)
    assert taken is not None
    monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        assert taken is not None
        taken.end()

    other = ChunkSettings(30, 0)
    migrated(root, tiny, "tiny", place, other, tell=tell)
    assert "at work on 'source docs'" in told[0]
    with pytest.raises(IndexMismatchError, match="has chunks of 30 tokens"):
        update(late, tiny, ReadSettings())
    assert Store.open(place).info.chunking == other


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIAWRONG"}, "does not know this key.*Check AWS_ACCESS_KEY_ID and"),
        ({"bucket": "s3://no-such-bucket/x"}, "bucket does not exist.*AWS_ENDPOINT_URL"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached.*AWS_ENDPOINT_URL"),
        ({"AWS_ALLOW_HTTP": ""}, "plain http .*--storage-option allow_http=true"),
        ({"bucket": "s3://KEY:PASSWORD@bucket/x"}, "Keys are read from AWS_ACCESS_KEY_ID"),
        ({"bucket": "gs://bucket/x"}, "allowed: a folder, or s3://bucket/prefix"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(
    run: Command,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str],
    message: str,
) -> None:
    uri = changed.pop("bucket", place)
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    code, out, err = run("search", "x", "--index", uri)
    assert code in (1, 2)
    assert re.search(message, err), err
    for secret in (KEY, SECRET, "PASSWORD", "Signature"):
        assert secret not in out + err


def test_a_store_that_goes_away_later_is_said(
    place: str, tmp_path: Path, index: Index, buckets: Buckets
) -> None:
    index(written(tmp_path / "docs", "things", 1))
    store = Store.open(place)
    bucket, client = place.split("/")[2], buckets.client()
    for key in buckets.objects(bucket):
        client.delete_object(Bucket=bucket, Key=key)
    client.delete_bucket(Bucket=bucket)
    with pytest.raises(StorageError, match=f"The index {place}: the bucket does not exist"):
        store.count()


def test_options_come_from_a_file_and_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "storage.toml"
    monkeypatch.setenv(VARIABLE, str(file))
    monkeypatch.delenv("AWS_ALLOW_HTTP", raising=False)
    file.write_text(
        '["s3://team"]\nendpoint = "http://minio:9000"\nallow_http = true\n'
        '["s3://team/private"]\nendpoint = "https://minio"\nclient_max_retries = 1\n'
    )
    known = storage_options("s3://team/index")
    assert known == {"aws_endpoint": "http://minio:9000", "allow_http": "true"}
    assert storage_options("s3://teams/index") == {}
    private = storage_options("s3://team/private/x", {"aws_region": "eu-west-1"})
    assert private == {
        "aws_endpoint": "https://minio",
        "client_max_retries": "1",
        "aws_region": "eu-west-1",
    }
    file.write_text('["s3://team"]\nendpont = "x"\n')
    with pytest.raises(InputError, match="'endpont'; did you mean 'endpoint'"):
        storage_options("s3://team/index")
    with pytest.raises(InputError, match="--storage-option is for s3"):
        storage_options(str(tmp_path), {"region": "x"})
    with pytest.raises(InputError, match=r"is a secret.*AWS_SECRET_ACCESS_KEY"):
        stated_options([f"aws_secret_access_key={SECRET}"])
    with pytest.raises(InputError, match="write KEY=VALUE"):
        stated_options(["endpoint"])


def test_only_one_of_many_takes_a_turn_and_a_silent_one_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = connect(str(tmp_path / "index"), None)
    first = Turns(database).read("x")
    won: list[bool] = []
    everyone = [
        threading.Thread(target=lambda n=n: won.append(Turns(database)._swap(first, f"run {n}")))
        for n in range(4)
    ]
    for thread in everyone:
        thread.start()
    for thread in everyone:
        thread.join()
    assert sorted(won) == [False, False, False, True]
    monkeypatch.setattr(turns, "PATIENCE_S", 0.2)
    monkeypatch.setattr(turns, "BEAT_S", 0.1)
    late = Turns(database).take("x", print)  # the winner never beats: it is dead
    assert late is not None
    late.check()
    assert Turns(database)._swap(Turns(database).read("x"), "a robber")
    late._beating.join(30)
    with pytest.raises(TurnLostError, match="run the same command again"):
        late.check()
    late.end()
    assert Turns(database).read("x").holder == "a robber"


def test_a_folder_of_several_sources_and_its_lock(tmp_path: Path, tiny: Embedder) -> None:
    place = str(tmp_path / "index")
    for name in ("anna", "bert"):
        root = written(tmp_path / name, name, 2)
        update(open_index(root, tiny, "tiny", place, CUT, name), tiny, ReadSettings())
    check_each_once(place, {"anna": 2, "bert": 2})
    told: list[str] = []
    with folder_turn(Path(place), print):
        waiting = threading.Thread(target=lambda: _wait(Path(place), told))
        waiting.start()
        while not told:
            time.sleep(0.01)
    waiting.join()
    assert f"process {os.getpid()}, which updates {place}" in told[0]


def _wait(folder: Path, told: list[str]) -> None:
    with folder_turn(folder, told.append):
        pass
