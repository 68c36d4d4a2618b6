"""Small bags as other tools write them."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from mcap.writer import CompressionType, Writer

from activeo3_ros.bags.messages import COMPRESSED_TYPE, IMAGE_TYPE, serialize_image
from activeo3_ros.codecs.result_cdr import typestore

TOPIC = "/camera/image_raw"
START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A noisy picture that differs from any other."""
    return np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)


def raw_messages(count: int, **size: int) -> list[tuple[int, bytes]]:
    """(time of recording, CDR) of raw images, 0.1 s apart; recorded 2 ms after their stamp."""
    return [
        (START_NS + i * STEP_NS + 2_000_000, serialize_image(picture(i, **size), START_NS + i * STEP_NS, "optical"))
        for i in range(count)
    ]


def compressed_message(image: np.ndarray, stamp_ns: int, suffix: str = ".jpg") -> bytes:
    store = typestore()
    header = store.types["std_msgs/msg/Header"](
        stamp=store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), frame_id="optical"
    )
    data = np.frombuffer(cv2.imencode(suffix, image)[1].tobytes(), np.uint8)
    message = store.types[COMPRESSED_TYPE](header=header, format=suffix[1:], data=data)
    return bytes(store.serialize_cdr(message, COMPRESSED_TYPE))


def raw_cdr(frame_id: bytes, encoding: bytes = b"bgr8\0", order: str = "<") -> bytes:
    """An Image of 1 x 1 pixel, written field by field."""
    body = b""

    def add(code: str, value: int) -> None:
        nonlocal body
        body += b"\0" * (-len(body) % struct.calcsize(code)) + struct.pack(order + code, value)

    def add_bytes(value: bytes) -> None:
        nonlocal body
        add("I", len(value))
        body += value

    add("i", 5)
    add("I", 6)
    add_bytes(frame_id)
    add("I", 1)
    add("I", 1)
    add_bytes(encoding)
    add("B", 0)
    add("I", 3)
    add_bytes(b"\1\2\3")
    return (b"\0\1\0\0" if order == "<" else b"\0\0\0\0") + body


def write_mcap(
    path: Path,
    messages: Sequence[tuple[int, bytes]],
    compression: CompressionType = CompressionType.NONE,
    chunk_bytes: int = 30_000,
    topic: str = TOPIC,
    kind: str = IMAGE_TYPE,
    encoding: str = "cdr",
    definition: str | None = None,
    **options: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_bytes, compression=compression, **options)
        writer.start(profile="ros2", library="test")
        schema = 0  # means none
        if kind:
            if definition is None and kind in typestore().types:
                definition, _ = typestore().generate_msgdef(kind, ros_version=2)
            language = "ros2msg" if encoding == "cdr" else encoding
            schema = writer.register_schema(kind, language, (definition or "").encode())
        channel = writer.register_channel(topic, encoding, schema)
        for time_ns, cdr in messages:
            writer.add_message(channel, time_ns, cdr, time_ns)
        writer.finish()
    return path


def write_humble_db3(
    path: Path, messages: Sequence[tuple[int, bytes]], topic: str = TOPIC, kind: str = IMAGE_TYPE
) -> Path:
    """As ROS 2 Humble writes it: the type's name only, no definition."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL)")
        db.execute("INSERT INTO schema VALUES (3, 'humble')")
        db.execute(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL)"
        )
        db.execute(
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, "
            "data BLOB NOT NULL)"
        )
        db.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
        db.execute("INSERT INTO topics VALUES (1, ?, ?, 'cdr', '')", (topic, kind))
        db.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)", messages)
    db.close()
    return path


def write_metadata(
    directory: Path, files: Sequence[Path], count: int, topic: str = TOPIC, kind: str = IMAGE_TYPE
) -> None:
    information = {
        "version": 5,
        "storage_identifier": files[0].suffix[1:].replace("db3", "sqlite3"),
        "relative_file_paths": [file.name for file in files],
        "message_count": count,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic,
                    "type": kind,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": "",
                },
                "message_count": count,
            }
        ],
        "compression_format": "",
        "compression_mode": "",
    }
    (directory / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": information}))
