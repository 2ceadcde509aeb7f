from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.unit.telemetry.builders import Clock, request, telemetry
from tradewind.telemetry.localfile import LocalFile, RequestLine, decode, encode, prune, spans_of
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.spans import request_spans

DEAD = 2**22 + 1
"""Above the largest pid that Linux gives."""


def a_record() -> RequestRecord:
    clock = Clock()
    return request(telemetry(clock), clock, b"00-" + b"4" * 32 + b"-" + b"5" * 16 + b"-01")


def test_request_is_read_back_as_the_same_spans() -> None:
    record = a_record()
    line = decode(encode(record))
    assert isinstance(line, RequestLine)
    read = spans_of(line, "tradewind-gateway")
    ids = iter([span.span_id for span in read[1:-1]])
    assert read == request_spans(record, lambda: next(ids))
    assert len({span.span_id for span in read}) == len(read)


@pytest.mark.parametrize("cut", [1, 10, 200, -1])
def test_torn_line_is_nothing(cut: int) -> None:
    assert decode(encode(a_record())[:cut]) is None


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'["x",1]', b'["r"]', b"\xff\xfe", b"null"])
def test_foreign_line_is_nothing(line: bytes) -> None:
    assert decode(line) is None


def test_later_versions_may_add_fields() -> None:
    line = encode(a_record())
    assert decode(line[:-1] + b',"later",1]') == decode(line)


def test_two_files_bound_a_process(tmp_path: Path) -> None:
    record = a_record()
    size = len(encode(record)) + 1
    file = LocalFile(tmp_path / "traces", "svc", file_bytes=10 * size)
    for _ in range(57):
        assert file.write([record]) == 0
    file.close()
    paths = sorted((tmp_path / "traces").iterdir())
    assert [path.name for path in paths] == [f"svc-{os.getpid()}.1.jsonl", f"svc-{os.getpid()}.jsonl"]
    assert [path.stat().st_size // size for path in paths] == [10, 7]
    assert all(decode(line) for path in paths for line in path.read_bytes().splitlines())


def test_files_are_private(tmp_path: Path) -> None:
    file = LocalFile(tmp_path / "traces", "svc")
    file.write([a_record()])
    file.close()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    file = LocalFile(tmp_path / "traces", "svc")
    file.path.parent.mkdir()
    file.path.symlink_to(target)
    assert file.write([a_record()]) == 1
    assert not target.exists()


def test_line_that_an_earlier_process_tore_does_not_spoil_the_next(tmp_path: Path) -> None:
    file = LocalFile(tmp_path, "svc")
    file.path.write_bytes(encode(a_record())[:50])
    file.write([a_record()])
    file.close()
    lines = file.path.read_bytes().splitlines()
    assert [decode(line) is None for line in lines] == [True, False]


def test_directory_that_cannot_be_made_loses_spans_but_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("a file")
    assert LocalFile(tmp_path / "traces", "svc").write([a_record(), a_record()]) == 2


def test_files_of_ended_processes_go_first_oldest_first(tmp_path: Path) -> None:
    names = [f"svc-{DEAD}.jsonl", f"svc-{DEAD + 1}.1.jsonl", f"svc-{os.getpid()}.jsonl", "notes.txt"]
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1_000 + age, 1_000 + age))
    prune(tmp_path, 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
    prune(tmp_path, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])
