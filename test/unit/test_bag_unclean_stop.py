"""A `.db3` file whose recording was killed: what lies in the log beside it is read, and no file of the user changes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from bag_fixtures import TOPIC, raw_messages, write_humble_db3, write_metadata

from activeo3_ros.bags.reading import Bag

COUNT = 8
IN_THE_FILE = 3
INSERT = "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)"


def killed_recording(directory: Path, log: str) -> Path:
    """The files as a killed recorder leaves them. log: "-wal" holds the messages after the first three, with "-journal"
    the file holds half a change that is to be taken back."""
    directory.mkdir(parents=True)
    written = raw_messages(COUNT)
    path = write_humble_db3(directory / "working" / "a.db3", written[:IN_THE_FILE])
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode={'WAL' if log == '-wal' else 'DELETE'}")
    db.execute("PRAGMA wal_autocheckpoint=0")
    if log == "-wal":
        db.executemany(INSERT, written[IN_THE_FILE:])
    else:
        db.execute("PRAGMA cache_size=1")  # so that the change reaches the file before it is finished
        db.execute("BEGIN")
        db.execute("UPDATE messages SET data = zeroblob(9000), timestamp = 0")
    for file in path.parent.iterdir():
        if file.suffix != ".db3-shm":
            shutil.copyfile(file, directory / file.name)
    db.close()
    shutil.rmtree(path.parent)
    assert (directory / f"a.db3{log}").stat().st_size
    return directory / "a.db3"


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in directory.iterdir()}


@pytest.mark.parametrize(("log", "expected"), [("-wal", COUNT), ("-journal", IN_THE_FILE)])
@pytest.mark.parametrize("is_read_only", [False, True])
def test_the_log_is_read_and_no_file_changes(tmp_path: Path, log: str, expected: int, is_read_only: bool):
    path = killed_recording(tmp_path / "bag", log)
    before = contents(path.parent)
    path.parent.chmod(0o555 if is_read_only else 0o755)
    try:
        (tmp_path / "link.db3").symlink_to(path)
        for bag in (path, path.parent, tmp_path / "link.db3"):
            with Bag(bag) as opened:
                entries, damage = opened.index([TOPIC])
                assert [opened.read(entry) for entry in entries] == [cdr for _, cdr in raw_messages(expected)]
            assert damage.count == 0
    finally:
        path.parent.chmod(0o755)
    assert contents(path.parent) == before


def test_metadata_count_the_messages_in_the_log_too(tmp_path: Path):
    path = killed_recording(tmp_path / "bag", "-wal")
    write_metadata(path.parent, [path], COUNT)
    with Bag(path.parent) as bag:
        entries, damage = bag.index([TOPIC])
    assert len(entries) == COUNT
    assert not damage


def test_the_copy_is_removed(tmp_path: Path, monkeypatch):
    path = killed_recording(tmp_path / "bag", "-wal")
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    with Bag(path):
        assert list((tmp_path / "copies").iterdir())
    assert not list((tmp_path / "copies").iterdir())


RECORDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=" + sys.argv[2])
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE messages SET timestamp = timestamp")
print("writing", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["WAL", "MEMORY"])
def test_a_file_that_a_recorder_still_writes_is_read_and_said_to_be_unfinished(tmp_path: Path, mode: str):
    path = write_humble_db3(tmp_path / "a.db3", raw_messages(COUNT))
    recorder = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(path), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == b"writing\n"
        with Bag(path) as bag:
            entries, damage = bag.index([TOPIC])
            assert [bag.read(entry) for entry in entries] == [cdr for _, cdr in raw_messages(COUNT)]
        assert "another process is writing it" in damage.describe()
        assert not damage.is_exact
        with pytest.raises(sqlite3.OperationalError, match="locked"):  # our reading has not taken its lock away
            sqlite3.connect(path, timeout=0).execute("DELETE FROM messages")
    finally:
        recorder.communicate(timeout=60)
