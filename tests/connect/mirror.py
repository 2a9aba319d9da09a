"""MirrorMaker 2 from Apache Kafka: topics, their settings, records, and where groups are."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from checks import KAFKA_BIN, Process, must, wait_for
from cluster import Broker
from worker import properties

TOPIC = "orders"
MIRRORED = f"source.{TOPIC}"
PARTITIONS = 3
HALF = 300
GROUP = "readers"


def produce(bootstrap, numbers):
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "compression.type": "lz4"})
    for number in numbers:
        producer.produce(TOPIC, partition=number % PARTITIONS, key=f"key {number}", value=f"value {number}", headers={"n": str(number)})
    producer.flush(30)


def records(bootstrap, topic):
    """Everything of a topic, by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, ended = [[] for _ in range(PARTITIONS)], set()

    def all_read():
        message = consumer.poll(1)
        if message is None:
            return False
        if message.error():
            ended.add(message.partition())
        else:
            found[message.partition()].append((message.key(), message.value(), message.headers(), message.timestamp()))
        return len(ended) == PARTITIONS

    wait_for(f"the end of {topic}", all_read, pause=0)
    consumer.close()
    return found


def committed(bootstrap, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP})
    offsets = consumer.committed([TopicPartition(topic, partition) for partition in range(PARTITIONS)], timeout=30)
    consumer.close()
    return [found.offset for found in offsets]


def read_as_group(bootstrap, topic, count):
    """What a member of the group reads next, and commits."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    values = []

    def enough():
        message = consumer.poll(1)
        if message is not None and not message.error():
            values.append(message.value().decode())
        return len(values) >= count

    wait_for(f"{count} records of {topic}", enough, pause=0)
    consumer.commit(asynchronous=False)
    consumer.close()
    return set(values)


def main():
    source, target = Broker("source", is_kafka=True), Broker("target")
    source.start()
    target.start()
    admin = AdminClient({"bootstrap.servers": source.bootstrap()})
    new = NewTopic(TOPIC, PARTITIONS, 1, config={"retention.ms": "123456789", "cleanup.policy": "compact,delete"})
    admin.create_topics([new])[TOPIC].result(30)
    produce(source.bootstrap(), range(HALF))
    read_as_group(source.bootstrap(), TOPIC, HALF)

    flow = "source->target"
    one = {
        f"{topic}.replication.factor": 1
        for topic in ("checkpoints.topic", "heartbeats.topic", "offset-syncs.topic", "offset.storage", "status.storage", "config.storage")
    }
    mirror = Process([f"{KAFKA_BIN}/connect-mirror-maker", properties("mirror", {
        "clusters": "source,target", "source.bootstrap.servers": source.bootstrap(), "target.bootstrap.servers": target.bootstrap(),
        f"{flow}.enabled": "true", f"{flow}.topics": TOPIC, f"{flow}.groups": GROUP, "target->source.enabled": "false",
        "replication.factor": 1, **one,
        f"{flow}.sync.group.offsets.enabled": "true", f"{flow}.offset.lag.max": 0,
        **{f"{flow}.{interval}.interval.seconds": 1 for interval in (
            "emit.checkpoints", "emit.heartbeats", "sync.group.offsets", "refresh.topics", "refresh.groups", "sync.topic.configs",
        )},
        "offset.flush.interval.ms": 500,
    })])
    mirrored = AdminClient({"bootstrap.servers": target.bootstrap()})
    topics = lambda: mirrored.list_topics(timeout=30).topics
    # Where all of them are JVMs this takes its time.
    wait_for("the mirrored topic", lambda: MIRRORED in topics(), within=180)
    must(len(topics()[MIRRORED].partitions) == PARTITIONS, "a topic is mirrored with its partitions")
    wait_for("the first records", lambda: sum(map(len, records(target.bootstrap(), MIRRORED))) >= HALF)
    must(
        records(target.bootstrap(), MIRRORED) == records(source.bootstrap(), TOPIC),
        "its records have keys, values, headers, times and places of the source",
    )
    wanted = committed(source.bootstrap(), TOPIC)
    wait_for("the group's offsets", lambda: committed(target.bootstrap(), MIRRORED) == wanted)
    must(sum(wanted) == HALF, "the group's offsets are synced")
    produce(source.bootstrap(), range(HALF, 2 * HALF))
    values = read_as_group(target.bootstrap(), MIRRORED, HALF)
    must(values == {f"value {number}" for number in range(HALF, 2 * HALF)}, "a member goes on in the mirror where it stopped")
    resource = ConfigResource(ResourceType.TOPIC, MIRRORED)
    config = lambda: mirrored.describe_configs([resource])[resource].result(30)
    wait_for("the topic's settings", lambda: config()["retention.ms"].value == "123456789")
    must(config()["cleanup.policy"].value == "compact,delete", "and so are the topic's settings")
    wait_for("heartbeats", lambda: {"heartbeats", "source.checkpoints.internal"} <= set(topics()))
    must(mirror.child.poll() is None, "MirrorMaker still runs")
    mirror.child.terminate()
    mirror.child.wait(60)
    source.stop()
    target.stop()


if __name__ == "__main__":
    main()
