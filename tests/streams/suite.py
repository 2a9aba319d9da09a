"""Kafka Streams with exactly_once_v2 while the broker is killed again and again: words are counted over repartition and
changelog topics, joined and windowed; the application is killed too, and its local state deleted. Every update comes out
once: a word that was there n times has the counts 1 to n, each once and in order."""

import os
import random
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients", "python"))

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import AGAINST_KAFKA, KAFKA_BIN, Process, must, ok, require, wait_for
from cluster import WORK, Broker

KILLS = int(os.environ.get("KILLS", "1" if AGAINST_KAFKA else "10"))
WORDS = [f"word{number}" for number in range(12)]
PARTITIONS = 2
HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = os.path.join(os.path.dirname(KAFKA_BIN.rstrip("/")), "libs")
SOON = {"reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 40, "retry.backoff.ms": 5, "metadata.recovery.strategy": "none", "log_level": 0}


class Application:
    def __init__(self, bootstrap, name="streams-state", protocol=()):
        self.bootstrap = bootstrap
        self.state = os.path.join(WORK, name)
        self.protocol = protocol
        self.process = None

    def start(self):
        self.process = Process(["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBRARIES}/*", os.path.join(HERE, "WordCount.java"), self.bootstrap, self.state, *self.protocol])
        self.process.line_with("state RUNNING", 120)

    def kill(self):
        self.process.kill()

    def stop(self):
        self.process.child.terminate()
        self.process.child.wait(60)

    def forget(self):
        shutil.rmtree(self.state, ignore_errors=True)


class Feeder:
    def __init__(self, bootstrap):
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 2, **SOON})
        self.random = random.Random(11)
        self.counts = {word: 0 for word in WORDS}

    def feed(self, lines):
        for number in range(lines):
            words = self.random.choices(WORDS, k=4)
            for word in words:
                self.counts[word] += 1
            self.producer.produce("lines", key=str(number % 7), value=" ".join(words), partition=number % PARTITIONS)
        self.producer.poll(0)

    def end(self):
        require(self.producer.flush(60) == 0, "all lines are sent")


class Reader:
    """What a committed reader has seen of one output topic."""

    def __init__(self, bootstrap, topic):
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"read-{topic}", "isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "earliest", **SOON})
        self.consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self.seen = {word: [] for word in WORDS}

    def poll(self):
        for message in self.consumer.consume(2000, 0.2):
            if message.error() is None:
                self.seen[message.key().decode()].append(int(message.value().decode().split(":")[0]))

    def count(self):
        return sum(len(counts) for counts in self.seen.values())


def prepare(bootstrap):
    """The topics that the application reads and writes, and the table's rows."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in ("lines", "lengths", "counts", "joined", "windowed")]).values():
        future.result(30)
    lengths = Producer({"bootstrap.servers": bootstrap})
    for word in WORDS:
        # The partition that Java's producer chooses for the key, so that both sides of the join meet.
        lengths.produce("lengths", key=word, value=str(len(word)), partition=partition_of(word))
    require(lengths.flush(30) == 0, "the table is filled")


def check_outputs(bootstrap, feeder, total):
    """Everything is in every output topic, once and in order."""
    for topic in ("counts", "joined", "windowed"):
        again = Reader(bootstrap, topic)

        def all_read():
            again.poll()
            return again.count() >= total

        wait_for(f"everything is in {topic}", all_read, within=60, pause=0)
        again.poll()
        wrong = {word: counts[:20] for word, counts in again.seen.items() if counts != list(range(1, feeder.counts[word] + 1))}
        must(not wrong, f"{topic}: each word's counts come once and in order, {total} in all", wrong)


def main():
    broker = Broker(overrides={"group.initial.rebalance.delay.ms": 0})
    broker.start()
    bootstrap = broker.bootstrap()
    prepare(bootstrap)
    application, feeder = Application(bootstrap), Feeder(bootstrap)
    reader = Reader(bootstrap, "counts")
    application.start()
    ok("a Streams application starts, with its internal topics")
    chance = random.Random(5)
    for round_number in range(KILLS):
        before = reader.count()
        feeder.feed(60)

        def moves():
            reader.poll()
            return reader.count() > before

        wait_for(f"the application counts in round {round_number}", moves, within=120, pause=0)
        if round_number == KILLS // 2:
            application.kill()
            application.forget()
            application.start()
            ok("the application goes on without its local state, from its changelogs")
        time.sleep(chance.random() * 0.3)
        broker.kill()
        broker.start()
    feeder.feed(60)
    feeder.end()
    total = sum(feeder.counts.values())

    def whole():
        reader.poll()
        return reader.count() >= total

    wait_for("everything is counted", whole, within=180, pause=0)
    check_outputs(bootstrap, feeder, total)
    application.kill()
    broker.stop()


def partition_of(key):
    """Java's default partitioner: murmur2 of the key."""
    data, seed, mask = key.encode(), 0x9747B28C, 0xFFFFFFFF
    value = (seed ^ len(data)) & mask
    for at in range(0, len(data) - len(data) % 4, 4):
        part = int.from_bytes(data[at:at + 4], "little") * 0x5BD1E995 & mask
        part = (part ^ part >> 24) * 0x5BD1E995 & mask
        value = (value * 0x5BD1E995 & mask) ^ part
    rest = data[len(data) - len(data) % 4:]
    if rest:
        value ^= int.from_bytes(rest, "little")
        value = value * 0x5BD1E995 & mask
    value ^= value >> 13
    value = value * 0x5BD1E995 & mask
    value ^= value >> 15
    return (value & 0x7FFFFFFF) % PARTITIONS


if __name__ == "__main__":
    main()
