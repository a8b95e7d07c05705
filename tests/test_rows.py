import gzip
import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyvec.engine.rows import Columns, Row, check_readable, count_rows, read_rows
from polyvec.errors import InputError, MissingExtraError
from polyvec.records.table import STDIN

PLAIN, TABLE = Columns(), Columns("body", "key")


def rows(path: Path, columns: Columns = PLAIN) -> list[tuple[str, str | int]]:
    return [(row.text, row.id) for row in read_rows([path], columns)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_lines_of_text_keep_their_order_and_blanks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "eins\r\n\nдва \n三")
    assert rows(path) == [("eins", 0), ("", 1), ("два ", 2), ("三", 3)]


def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\u2028still one\x0bstill one\ntwo\n")
    assert len(rows(path)) == 2


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\n")) == [("one", 0)]


def test_jsonl_columns_and_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"key":"x","body":"one"}\n\n{"key":7,"body":"two"}\n')
    assert rows(path, TABLE) == [("one", "x"), ("two", 7)]


def test_csv_with_line_ends_and_quotes_in_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'key,body\r\n1,"one ""1""\nmore"\r\n2,two\r\n')
    assert rows(path, TABLE) == [('one "1"\nmore', "1"), ("two", "2")]


def test_csv_cells_over_the_modules_own_limit(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert rows(write(tmp_path / "a.csv", f"text\n{long}\n"))[0][0] == long


def test_tsv(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "a.tsv", "key\tbody\na\tone, two\n"), TABLE) == [("one, two", "a")]


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": [3, 4], "body": ["one", "two"]}), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet", TABLE) == [("one", 3), ("two", 4)]


def test_gzip_and_several_files_number_on(tmp_path: Path) -> None:
    zipped = tmp_path / "a.txt.gz"
    zipped.write_bytes(gzip.compress(b"one\ntwo\n"))
    plain = write(tmp_path / "b.txt", "three\n")
    assert [r.id for r in read_rows([zipped, plain], Columns())] == [0, 1, 2]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    assert [row.text for row in read_rows([STDIN], Columns())] == ["one", "two"]


def test_the_relevant_column_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", '{"text":"one","gold":"d1"}\n')
    (row,) = read_rows([path], Columns(relevant="gold"))
    assert row == Row("one", 0, f"{path}, line 1", "d1")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"one\n\xff two\n", r"a\.txt, line 2 is not UTF-8 \(byte 0xff at 0\)"),
        ("a.jsonl", '{"text":"one"}\n{"text":\n', r"a\.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"text":"\\ud800"}\n', r"line 1 is not JSON"),
        ("a.jsonl", '["one"]\n', r"line 1 is a JSON list; an object is needed"),
        ("a.jsonl", '{"txet":"one","n":1}\n', r"no column 'text'. It has: txet, n. .*--text-col"),
        ("a.jsonl", '{"text":5}\n', r"line 1: 'text' is 5; a string is needed"),
        ("a.csv", 'text\n"one\n', r"a\.csv, line 2: unexpected end of data"),
        ("a.csv", "text,n\none, two,3\n", r"line 2 has more cells than the 2 of the heading"),
        ("a.parquet", b"PAR1 no", r"a\.parquet, after row 0"),
        ("a.doc", "x", r"'\.doc' does not say a format; state one with --format txt\|jsonl"),
        ("a.txt.gz", b"no gzip", r"a\.txt\.gz, after line 0: Not a gzipped file"),
    ],
)
def test_unreadable_rows_say_where(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        rows(write(tmp_path / name, content))


def test_a_missing_file_is_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file"):
        check_readable([tmp_path / "none.txt"], None)


def test_parquet_without_pyarrow_names_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'polyvec\[parquet\]'"):
        rows(write(tmp_path / "a.parquet", b"PAR1"))


def test_rows_are_counted_where_that_is_cheap(tmp_path: Path) -> None:
    text = write(tmp_path / "a.txt", "one\ntwo\n")
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.parquet")
    assert count_rows([text, tmp_path / "a.parquet"]) == 3
    assert count_rows([text, STDIN]) is None
