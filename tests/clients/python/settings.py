"""Topic settings, as clients see them: at creation, changed while the broker runs, and as defaults for all brokers."""

import os
import random
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition, OFFSET_BEGINNING, TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec, ResourceType,
)

from checks import CODECS, DEADLINE_S, kafka_tool, must, require, wait_for

BOOTSTRAP = os.environ["BOOTSTRAP"]
MEBIBYTE = 1 << 20
MINUTE_MS = 60_000
TARGETS = {
    "uncompressed": {},
    "gzip": {"compression.gzip.level": "9"},
    "snappy": {},
    "lz4": {"compression.lz4.level": "17"},
    "zstd": {"compression.zstd.level": "19"},
}

admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def create(topic, **settings):
    config = {name.replace("_", "."): str(value) for name, value in settings.items()}
    for future in admin.create_topics([NewTopic(topic, 1, 1, config=config)]).values():
        future.result(DEADLINE_S)


def alter(kind, name, settings):
    """Sets settings, or takes those away that are None."""
    entries = [
        ConfigEntry(key, "" if value is None else str(value), incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET)
        for key, value in settings.items()
    ]
    for future in admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]).values():
        future.result(DEADLINE_S)


def alter_topic(topic, **settings):
    alter(ResourceType.TOPIC, topic, {name.replace("_", "."): value for name, value in settings.items()})


def alter_all_brokers(**settings):
    for name, value in settings.items():
        change = ["--delete-config", name.replace("_", ".")] if value is None else ["--add-config", f"{name.replace('_', '.')}={value}"]
        kafka_tool("kafka-configs", "--bootstrap-server", BOOTSTRAP, "--alter", "--entity-type", "brokers", "--entity-default", *change)


def send(topic, records, **more):
    """Produces each record and gives what became of it: an error's name, or the offset."""
    outcomes = []

    def delivered(error, message):
        outcomes.append(KafkaError(error.code()).name() if error else message.offset())

    producer = Producer({"bootstrap.servers": BOOTSTRAP, "message.max.bytes": 20_000_000, "linger.ms": 5, **more})
    for record in records:
        producer.produce(topic, callback=delivered, **record)
        if more.get("linger.ms") == 0:
            producer.flush(DEADLINE_S)
    require(producer.flush(DEADLINE_S) == 0, f"everything sent to {topic} is answered")
    return outcomes


def send_one(topic, **record):
    return send(topic, [{"value": b"v", "key": b"k", **record}])[0]


def read(topic, count):
    reader = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "settings", "enable.auto.commit": False})
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    messages = []

    def step():
        message = reader.poll(0.2)
        if message is not None:
            require(message.error() is None, "a message without an error", message.error())
            messages.append(message)
        return len(messages) >= count

    wait_for(f"{count} records of {topic} are read", step, pause=0)
    reader.close()
    return messages


def offsets(topic):
    """First and next offset."""
    place = TopicPartition(topic, 0)
    found = []
    for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
        found.append(admin.list_offsets({place: spec})[place].result(DEADLINE_S).offset)
    return tuple(found)


def now_ms():
    return int(time.time() * 1000)


def timestamps():
    create("bounds", message_timestamp_before_max_ms=MINUTE_MS, message_timestamp_after_max_ms=MINUTE_MS)
    sent = [send_one("bounds", timestamp=now_ms() + delta) for delta in (0, -2 * MINUTE_MS, 2 * MINUTE_MS, -MINUTE_MS // 2, MINUTE_MS // 2)]
    must(sent == [0, "INVALID_TIMESTAMP", "INVALID_TIMESTAMP", 1, 2], "times out of a topic's bounds are refused", sent)
    alter_topic("bounds", message_timestamp_before_max_ms=None, message_timestamp_after_max_ms=10 * MINUTE_MS)
    sent = [send_one("bounds", timestamp=now_ms() + delta) for delta in (-900 * MINUTE_MS, 2 * MINUTE_MS, 20 * MINUTE_MS)]
    must(sent == [3, 4, "INVALID_TIMESTAMP"], "changed bounds count for the next record", sent)
    alter_topic("bounds", message_timestamp_type="LogAppendTime")
    before = now_ms()
    require(send_one("bounds", timestamp=12_345) == 5, "no time is refused where the log sets it")
    kinds = [message.timestamp() for message in read("bounds", 6)]
    must(kinds[3][0] == TIMESTAMP_CREATE_TIME and kinds[5][0] == TIMESTAMP_LOG_APPEND_TIME, "each record keeps the type of time it was written with", kinds)
    must(before - 1000 <= kinds[5][1] <= now_ms() + 1000, "the log's time is the broker's", kinds)


def sizes():
    noise = random.Random(7).randbytes(5000)
    create("sizes", max_message_bytes=2000)
    sent = [send_one("sizes", value=value) for value in (noise[:1500], noise)]
    must(sent == [0, "MSG_SIZE_TOO_LARGE"], "a batch above max.message.bytes is refused", sent)
    sent = send("sizes", [{"value": b"x" * 50_000}], **{"compression.type": "zstd"})
    must(sent == [1], "what counts is the size after the producer's compression", sent)
    alter_topic("sizes", compression_type="uncompressed")
    sent = send("sizes", [{"value": b"x" * 50_000}], **{"compression.type": "zstd"})
    must(sent == ["MSG_SIZE_TOO_LARGE"], "and after the topic's own compression", sent)
    alter_topic("sizes", max_message_bytes=60_000)
    must(send_one("sizes", value=noise) == 2, "a larger max.message.bytes counts at once")
    create("default-size")
    alter_all_brokers(message_max_bytes=3000)
    sent = [send_one(topic, value=noise) for topic in ("default-size", "sizes")]
    alter_all_brokers(message_max_bytes=None)
    sent.append(send_one("default-size", value=noise))
    must(sent == ["MSG_SIZE_TOO_LARGE", 3, 0], "message.max.bytes of all brokers is the default of topics without their own", sent)


def keys():
    create("keys", cleanup_policy="compact")
    sent = [send_one("keys"), send_one("keys", key=None)]
    must(sent == [0, "INVALID_RECORD"], "a record without a key is refused by a compacted topic", sent)
    alter_topic("keys", cleanup_policy="delete")
    must(send_one("keys", key=None) == 1, "and taken when the topic is not compacted any more")


def records_of(codec):
    start = now_ms()
    return [
        {"key": f"k{at}", "value": f"{codec} {at} " + "words that are said again " * 20, "timestamp": start + at, "headers": [("n", str(at).encode()), ("none", None)]}
        for at in range(100)
    ]


def compression():
    stored = {}
    for target, level in TARGETS.items():
        topic = f"to-{target}"
        create(topic, compression_type=target)
        if level:
            alter(ResourceType.TOPIC, topic, level)
        expected = []
        for codec in CODECS:
            records = records_of(codec)
            sent = send(topic, records, **{"compression.type": codec, "enable.idempotence": True})
            require(sent == list(range(len(expected), len(expected) + 100)), f"{codec} records are taken by {topic}", sent)
            expected += records
        for sent, message in zip(expected, read(topic, len(expected))):
            found = {
                "key": message.key().decode(), "value": message.value().decode(), "timestamp": message.timestamp()[1],
                "headers": message.headers(),
            }
            require(found == sent, f"{topic} gives back what was sent", (found, sent))
        output = kafka_tool("kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--from-beginning", "--max-messages", 500, "--timeout-ms", 30_000)
        must(output.count("words") == 500 * 20, f"compression.type={target}: what any codec sent is read as it was, by librdkafka and by Java")
        stored[target] = size_of(topic)
    must(all(size < stored["uncompressed"] / 5 for target, size in stored.items() if target != "uncompressed"), "what is stored is compressed", stored)


def size_of(topic):
    output = kafka_tool("kafka-log-dirs", "--bootstrap-server", BOOTSTRAP, "--describe", "--topic-list", topic)
    return int(output.split('"size":')[1].split(",")[0])


def fill(topic, count, timestamp):
    """Batches of 100 kB, ten of which fill a segment of 1 MiB."""
    noise = random.Random(3)
    sent = send(topic, [{"value": noise.randbytes(100_000), "timestamp": timestamp} for _ in range(count)], **{"linger.ms": 0})
    require(len(sent) == count and all(isinstance(offset, int) for offset in sent), f"{topic} is filled", sent)


def retention():
    create("by-bytes", segment_bytes=MEBIBYTE)
    create("by-time", segment_bytes=MEBIBYTE, file_delete_delay_ms=0)
    create("by-default", segment_bytes=MEBIBYTE)
    create("kept", segment_bytes=MEBIBYTE, retention_ms=-1, retention_bytes=-1)
    fill("by-bytes", 45, now_ms())
    fill("by-time", 15, now_ms() - 10 * MINUTE_MS)
    fill("by-default", 15, now_ms() - 10 * MINUTE_MS)
    fill("kept", 15, now_ms() - 10 * MINUTE_MS)
    whole = size_of("by-bytes")
    # A segment goes where what is left still has the size: 45 batches, of which 3 segments of 10 may go.
    alter_topic("by-bytes", retention_bytes=whole * 15 // 45)
    alter_topic("by-time", retention_ms=MINUTE_MS)
    alter_all_brokers(log_retention_ms=5 * MINUTE_MS)
    wait_for("retention.ms takes the active segment, too", lambda: offsets("by-time") == (15, 15))
    wait_for("retention.bytes takes what is too much", lambda: offsets("by-bytes")[0] > 0)
    wait_for("log.retention.ms is the default of topics", lambda: offsets("by-default") == (15, 15))
    must(offsets("by-bytes") == (30, 45), "retention.bytes, set while the broker runs, keeps exactly what it asks for", offsets("by-bytes"))
    must(size_of("by-bytes") == whole * 15 // 45, "and the size that is told is that of what is left", (whole, size_of("by-bytes")))
    must(size_of("by-time") == 0 and send_one("by-time") == 15, "retention.ms empties a topic, and offsets go on")
    must(offsets("kept") == (0, 15), "a topic of its own settings keeps them against the defaults of all brokers", offsets("kept"))
    alter_all_brokers(log_retention_ms=None)


timestamps()
sizes()
keys()
compression()
retention()
