"""MirrorMaker 2 from Apache Kafka into the broker that is tested: topics with their partitions and settings, records, heartbeats,
checkpoints, and the offsets of groups, so that a consumer that stopped at the source goes on at the target. The target is
killed in the middle."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewPartitions, NewTopic, ResourceType,
)

from checks import AGAINST_KAFKA, must, ok, require, wait_for
from cluster import Broker
from worker import SOON, Worker, properties

KILLS = int(os.environ.get("KILLS", "1" if AGAINST_KAFKA else "3"))
LONG_S = 150
PARTITIONS = 3
# Young enough for the topic's retention.
START_MS = int(time.time() * 1000) - 600_000
TOPIC, SETTINGS = "orders", {"cleanup.policy": "compact,delete", "retention.ms": "7200000", "max.message.bytes": "200000"}
MIRRORED = f"source.{TOPIC}"
SMALL = {
    "group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 2, "transaction.state.log.num.partitions": 2,
}


class Source:
    """The topic at the source, and what was written to it."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.written = {}

    def create(self):
        self.admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config=SETTINGS)])[TOPIC].result(30)

    def write(self, count, partitions=PARTITIONS):
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "log_level": 0})
        for partition in range(partitions):
            written = self.written.setdefault(partition, [])
            for _ in range(count):
                number = len(written)
                written.append((f"key-{number}", f"{partition}:{number}", number.to_bytes(4, "big"), START_MS + number))
                key, value, header, time_ms = written[-1]
                producer.produce(TOPIC, key=key, value=value, partition=partition, headers=[("number", header)], timestamp=time_ms)
        require(producer.flush(60) == 0, "the source takes the records")

    def total(self):
        return sum(len(written) for written in self.written.values())


def consume_and_stop(bootstrap, group, topic, count):
    """Reads this many records as a member of the group, commits and leaves. Gives them by partition, in order."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "session.timeout.ms": 6000, "log_level": 0,
        # Who goes on at the target must find offsets there.
        "auto.offset.reset": "earliest" if topic == TOPIC else "error",
    })
    consumer.subscribe([topic])
    seen, found = {}, 0

    def step():
        nonlocal found
        for message in consumer.consume(min(count - found, 50), 0.2):
            require(message.error() is None, f"{group} reads {topic}", message.error())
            seen.setdefault(message.partition(), []).append(message.value().decode())
            found += 1
        return found >= count

    wait_for(f"{group} reads {count} records of {topic}", step, within=LONG_S, pause=0)
    consumer.commit(asynchronous=False)
    consumer.close()
    return seen


class Target:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "read-target", "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "isolation.level": "read_committed", "topic.metadata.refresh.interval.ms": 500, "log_level": 0,
        })
        self.seen = {}
        self.next = {}
        self.assigned = 0

    def topics(self):
        try:
            return self.admin.list_topics(timeout=5).topics
        except KafkaException:
            return {}

    def partitions(self, topic=MIRRORED):
        known = self.topics().get(topic)
        return 0 if known is None else len(known.partitions)

    def settings(self, topic=MIRRORED):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return self.admin.describe_configs([resource])[resource].result(30)

    def read(self, partitions):
        if self.assigned != partitions:
            places = [TopicPartition(MIRRORED, partition, self.next.get(partition, 0)) for partition in range(partitions)]
            self.assigned = partitions
            self.consumer.assign(places)
        for message in self.consumer.consume(2000, 0.1):
            if message.error() is None:
                headers = dict(message.headers() or [])
                record = (message.key().decode(), message.value().decode(), headers.get("number"), message.timestamp()[1])
                self.seen.setdefault(message.partition(), []).append(record)
                self.next[message.partition()] = message.offset() + 1
        return sum(len(seen) for seen in self.seen.values())

    def committed(self, group):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 0})
        try:
            places = consumer.committed([TopicPartition(MIRRORED, partition) for partition in range(PARTITIONS)], 10)
            return [place.offset for place in places]
        except KafkaException:
            return []
        finally:
            consumer.close()

    def count_of(self, topic):
        """How many records a topic of one partition has had."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "count", "log_level": 0})
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, 0), 5)[1]
        except KafkaException:
            return 0
        finally:
            consumer.close()


def mirror_maker(source, target):
    entries = {
        "clusters": "source, target", "source.bootstrap.servers": source, "target.bootstrap.servers": target,
        "source->target.enabled": "true", "source->target.topics": "orders.*", "source->target.groups": "stops-.*",
        # The other direction carries nothing.
        "target->source.enabled": "false", "target->source.emit.heartbeats.enabled": "false",
        "target.exactly.once.source.support": "enabled", "tasks.max": 2, "plugin.discovery": "service_load",
        "sync.group.offsets.enabled": "true", "offset.lag.max": 0, "refresh.topics.interval.seconds": 1,
        "refresh.groups.interval.seconds": 1, "sync.topic.configs.interval.seconds": 1, "emit.heartbeats.interval.seconds": 1,
        "emit.checkpoints.interval.seconds": 1, "sync.group.offsets.interval.seconds": 1, "offset.flush.interval.ms": 500,
        "scheduled.rebalance.max.delay.ms": 0,
    }
    for name in ("", "checkpoints.topic.", "heartbeats.topic.", "offset-syncs.topic.", "offset.storage.", "status.storage.", "config.storage."):
        entries[f"{name}replication.factor"] = 1
    for cluster in ("source", "target"):
        entries |= {f"{cluster}.{key}": value for key, value in SOON.items()}
        entries |= {f"{cluster}.{role}.{key}": value for role in ("producer", "consumer", "admin") for key, value in SOON.items()}
    return Worker("connect-mirror-maker", "mirror-maker", properties("mirror-maker.properties", entries))


def main():
    origin = Broker("source", overrides=SMALL, is_kafka=True)
    broker = Broker("target", overrides=SMALL if AGAINST_KAFKA else {"group.initial.rebalance.delay.ms": 0})
    origin.start()
    broker.start()
    source, target = Source(origin.bootstrap()), Target(broker.bootstrap())
    source.create()
    source.write(200)
    mirror = mirror_maker(origin.bootstrap(), broker.bootstrap())
    mirror.launch()
    # Both groups stop here: one at the end of what there is, one in its middle.
    consume_and_stop(source.bootstrap, "stops-at-end", TOPIC, source.total())
    consume_and_stop(source.bootstrap, "stops-in-middle", TOPIC, source.total() // 2)
    middle = [place.offset for place in committed_at(source.bootstrap, "stops-in-middle")]

    wait_for("the topic comes to the target", lambda: target.partitions() == PARTITIONS, within=LONG_S, pause=0.2)
    ok("MirrorMaker makes the source's topic at the target, with as many partitions")
    wait_for("the records come", lambda: target.read(PARTITIONS) >= source.total(), within=LONG_S, pause=0)
    must(target.seen == source.written, "records come whole and in order: keys, values, headers, times")
    same_settings(target, SETTINGS)
    ok("the topic's settings come, too")

    wait_for("the offsets of the group at the end come", lambda: target.committed("stops-at-end") == [len(source.written[partition]) for partition in range(PARTITIONS)], within=LONG_S, pause=0.3)
    ok("the offsets of a group that has read everything are the same at the target")
    wait_for("the offsets of the group in the middle come", lambda: max(target.committed("stops-in-middle"), default=0) > 0, within=LONG_S, pause=0.3)
    translated = target.committed("stops-in-middle")
    must(all(there <= max(here, 0) for there, here in zip(translated, middle)), "a group in the middle loses nothing: it goes on at its place or before", (translated, middle))
    must(target.count_of("heartbeats") > 0, "heartbeats come")
    must(target.count_of("source.checkpoints.internal") > 0, "checkpoints come")

    for round_number in range(KILLS):
        before = target.read(PARTITIONS)
        source.write(100)
        wait_for(f"records come in round {round_number}", lambda before=before: target.read(PARTITIONS) > before, within=LONG_S, pause=0)
        broker.kill()
        broker.start()
    wait_for("all records come", lambda: target.read(PARTITIONS) >= source.total(), within=LONG_S, pause=0)
    for _ in range(10):
        target.read(PARTITIONS)
    must(target.seen == source.written, f"over {KILLS} kills of the target every record comes once and in order, {source.total()} of them")

    more = consume_and_stop(broker.bootstrap(), "stops-at-end", MIRRORED, source.total() - 200 * PARTITIONS)
    expected = {partition: [record[1] for record in written[200:]] for partition, written in source.written.items()}
    must(more == expected, "a consumer that stopped at the source goes on at the target where it stopped")

    changes(source, target)
    mirror.kill()
    broker.stop()
    origin.stop()


def committed_at(bootstrap, group):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        return consumer.committed([TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)], 30)
    finally:
        consumer.close()


def same_settings(target, wanted):
    def same():
        there = target.settings()
        return all(there[name].value == value for name, value in wanted.items())

    wait_for(f"the settings {wanted} come", same, within=LONG_S, pause=0.3)


def changes(source, target):
    """What changes at the source changes at the target."""
    resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[
        ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("max.message.bytes", None, incremental_operation=AlterConfigOpType.DELETE),
    ])
    source.admin.incremental_alter_configs([resource])[resource].result(30)
    source.admin.create_partitions([NewPartitions(TOPIC, PARTITIONS + 2)])[TOPIC].result(30)
    same_settings(target, {"retention.ms": "3600000", "max.message.bytes": "1048588"})
    must(target.settings()["cleanup.policy"].source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value, "settings that change at the source change at the target")
    wait_for("the new partitions come", lambda: target.partitions() == PARTITIONS + 2, within=LONG_S, pause=0.3)
    source.write(50, PARTITIONS + 2)
    wait_for("records come to them", lambda: target.read(PARTITIONS + 2) >= source.total(), within=LONG_S, pause=0)
    must(target.seen == source.written, "partitions that are added come with their records")


main()
