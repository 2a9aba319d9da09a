"""Kafka Streams with group.protocol=streams (KIP-1071) and exactly_once_v2: the broker makes the internal topics and shares the
tasks out while the application grows from one instance to four and shrinks to two; an instance is killed and its state
deleted, and the broker is killed again and again. Every update comes out once, as in the suite of the classic protocol."""

import random
import time

from confluent_kafka.admin import ConfigResource, ResourceType

from application import (
    GROUP, KILLS, PARTITIONS, SETTINGS, Application, Feeder, Reader, check_outputs, compile_application, prepare, wait_moving, wait_shared,
)

from checks import kafka_tool, must, ok, wait_for
from cluster import Broker


class Run:
    """The application while it is fed and the broker is killed."""

    def __init__(self):
        self.broker = Broker(overrides=SETTINGS)
        self.broker.start()
        self.bootstrap = self.broker.bootstrap()
        self.admin = prepare(self.bootstrap)
        self.feeder, self.reader = Feeder(self.bootstrap), Reader(self.bootstrap, "counts")
        classpath = compile_application()
        # A thread each: a task for each of four.
        self.instances = [Application(classpath, self.bootstrap, "streams", 1, name) for name in ("first", "second", "third", "fourth")]
        self.chance = random.Random(7)

    def kill_broker(self, times):
        for _ in range(times):
            wait_moving(self.feeder, self.reader, "between kills of the broker")
            # A random moment of its work, so that kills meet every step of a transaction.
            time.sleep(self.chance.random() * 0.3)
            self.broker.kill()
            self.broker.start()
        wait_moving(self.feeder, self.reader, "after kills of the broker")

    def check_topics(self):
        topics = self.admin.list_topics(timeout=30).topics
        internal = {name: len(topic.partitions) for name, topic in topics.items() if name.startswith(f"{GROUP}-")}
        changelogs = [name for name in internal if name.endswith("-changelog")]
        must(
            f"{GROUP}-words-repartition" in internal and set(internal.values()) == {PARTITIONS} and len(changelogs) == 4,
            "the broker has made the repartition topic and the changelogs, with the partitions of what they follow", internal,
        )
        resource = ConfigResource(ResourceType.TOPIC, f"{GROUP}-counts-changelog")
        configs = self.admin.describe_configs([resource])[resource].result(30)
        must(configs["cleanup.policy"].value == "compact", "a changelog is compacted, as the application wants it")

    def rows(self):
        """A row of each member, as Kafka's own tool tells."""
        told = kafka_tool("kafka-streams-groups", "--bootstrap-server", self.bootstrap, "--describe", "--group", GROUP, "--members")
        return [line.split() for line in told.splitlines() if line.startswith(GROUP)]


def main():
    run = Run()
    first, *others = run.instances
    first.start()
    wait_moving(run.feeder, run.reader, "alone")
    ok("an instance runs with group.protocol=streams")
    run.check_topics()
    listed = kafka_tool("kafka-streams-groups", "--bootstrap-server", run.bootstrap, "--list")
    must(GROUP in listed.split(), "Kafka's tool lists the group", listed)
    kills = [KILLS // 3, KILLS - 2 * (KILLS // 3), KILLS // 3]
    run.kill_broker(kills[0])
    for instance in others:
        instance.start()
    wait_shared(run.instances)
    wait_moving(run.feeder, run.reader, "with four instances")
    rows = run.rows()
    must(len(rows) == 4, "one instance becomes four, and each of them is given tasks", rows)
    run.kill_broker(kills[1])
    crashed = run.instances[1]
    crashed.kill()
    crashed.forget()
    wait_shared([instance for instance in run.instances if instance is not crashed])
    crashed.start()
    wait_shared(run.instances)
    ok("a killed instance's tasks go to the others, and it gets its share again without its local state, from the changelogs")
    first.stop()
    run.instances[3].stop()
    left = run.instances[1:3]
    wait_shared(left)
    wait_for("the group has two members", lambda: len(run.rows()) == 2)
    ok("four instances become two, which take over the tasks of the others")
    run.kill_broker(kills[2])
    check_outputs(run.bootstrap, run.feeder)
    for instance in left:
        instance.kill()
    run.broker.stop()


main()
