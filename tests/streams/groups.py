"""Kafka Streams with group.protocol=streams (KIP-1071) and exactly_once_v2: the broker makes the internal topics and shares
the tasks out, while the application grows from one instance to two and shrinks again, once by a crash, and the broker is
killed in between. Every update comes out once: a word that was there n times has the counts 1 to n, each once and in order."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from checks import kafka_tool, must, ok, wait_for
from cluster import Broker
from suite import PARTITIONS, Application, Feeder, Reader, check_outputs, prepare

GROUP = "word-count"
SETTINGS = {
    "group.initial.rebalance.delay.ms": 0,
    "group.streams.initial.rebalance.delay.ms": 0,
    "group.streams.min.heartbeat.interval.ms": 100,
    "group.streams.heartbeat.interval.ms": 300,
    "group.streams.min.session.timeout.ms": 1000,
    "group.streams.session.timeout.ms": 6000,
}


def tasks_of_members(bootstrap):
    """How many active tasks each member has, as Kafka's own tool tells."""
    told = kafka_tool("kafka-streams-groups", "--bootstrap-server", bootstrap, "--describe", "--group", GROUP, "--members", "--verbose")
    rows = [line.split() for line in told.splitlines() if line.startswith(GROUP)]
    return [row for row in rows if row], told


def main():
    broker = Broker(overrides=SETTINGS)
    broker.start()
    bootstrap = broker.bootstrap()
    prepare(bootstrap)
    feeder, reader = Feeder(bootstrap), Reader(bootstrap, "counts")
    first = Application(bootstrap, "first", ["streams"])
    second = Application(bootstrap, "second", ["streams"])

    def goes_on(when):
        before = reader.count()
        feeder.feed(60)

        def moves():
            reader.poll()
            return reader.count() > before

        wait_for(f"the application counts {when}", moves, within=120, pause=0)
        ok(f"the application counts {when}")

    first.start()
    goes_on("alone")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = admin.list_topics(timeout=30).topics
    internal = {name: len(topic.partitions) for name, topic in topics.items() if name.startswith(f"{GROUP}-")}
    repartition = f"{GROUP}-words-repartition"
    must(
        repartition in internal and set(internal.values()) == {PARTITIONS} and sum(name.endswith("-changelog") for name in internal) == 4,
        "the broker has made the repartition topic and the changelogs, with the partitions of what they follow", internal,
    )
    resource = ConfigResource(ResourceType.TOPIC, f"{GROUP}-counts-changelog")
    configs = admin.describe_configs([resource])[resource].result(30)
    must(configs["cleanup.policy"].value == "compact", "a changelog is compacted, as the application wants it")
    listed = kafka_tool("kafka-streams-groups", "--bootstrap-server", bootstrap, "--list")
    must(GROUP in listed.split(), "Kafka's tool lists the group", listed)
    second.start()
    goes_on("while a second instance comes")

    def both_work():
        rows, _ = tasks_of_members(bootstrap)
        return len(rows) == 4 and all("ACTIVE" in " ".join(row) or ":" in " ".join(row) for row in rows)

    wait_for("both instances have tasks", both_work, within=60, pause=0.5)
    ok("four threads of two instances are in the group, each with tasks")
    broker.kill()
    broker.start()
    goes_on("after the broker was killed")
    second.kill()
    goes_on("after an instance was killed, whose tasks the other takes over")
    second.start()
    goes_on("with the instance that came back")
    first.stop()
    goes_on("after the first instance has left")
    feeder.end()
    total = sum(feeder.counts.values())

    def whole():
        reader.poll()
        return reader.count() >= total

    wait_for("everything is counted", whole, within=180, pause=0)
    check_outputs(bootstrap, feeder, total)
    second.kill()
    broker.stop()


main()
