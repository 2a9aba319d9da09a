"""The same commands of Apache Kafka's tools, given to the broker that is tested and to Apache Kafka, print the same: features,
records that are deleted, offsets, log directories, transactions, groups."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from checks import AGAINST_KAFKA, KAFKA_BIN, ok, require
from cluster import WORK, Broker

TOPIC, PARTITIONS, RECORDS = "beside", 3, 40
START_MS = 1_700_000_000_000


def fill(bootstrap):
    """The same topics, records, transactions and groups in each broker."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config={"retention.ms": "-1"})])[TOPIC].result(30)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "beside-producer", "log_level": 0})
    producer.init_transactions(60)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        for number in range(RECORDS):
            producer.produce(TOPIC, value=str(number), partition=number % PARTITIONS, timestamp=START_MS + 1000 * number)
        require(producer.flush(30) == 0, "the records are there")
        end(30)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "beside-group", "log_level": 0})
    consumer.commit(offsets=[TopicPartition(TOPIC, partition, 5) for partition in range(PARTITIONS)], asynchronous=False)
    consumer.close()


def canonical(text):
    """What is one run's own (times, ids, directories, ports, epochs of the metadata) left out; lines sorted, as Java orders by hashes."""
    text = re.sub(r"127\.0\.0\.1:\d+", "BROKER", text)
    text = re.sub(r"Epoch: \d+", "Epoch: N", text)
    text = re.sub(r'"logDir":"[^"]*"', '"logDir":"DIRECTORY"', text)
    text = re.sub(r'"(totalBytes|usableBytes|size)":\d+', r'"\1":N', text)
    text = re.sub(r"^\[[\d-]+ [\d:,]+\] ", "[TIME] ", text, flags=re.MULTILINE)
    return sorted(re.sub(r"\s+", " ", line).strip() for line in text.splitlines())


class Pair:
    def __init__(self, tested, reference):
        self.addresses = [tested, reference]
        self.pool = ThreadPoolExecutor(2)
        self.differ = []

    def run(self, tool, arguments):
        def one(address):
            command = [f"{KAFKA_BIN}/{tool}", "--bootstrap-server", address, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)
            # What a tool says of its own options goes to stderr, too.
            errors = [line for line in done.stderr.splitlines() if not line.lstrip().startswith(("at ", "..."))]
            return done.returncode, done.stdout + "\n".join(errors)

        return list(self.pool.map(one, self.addresses))

    def same(self, tool, *arguments, parts=lambda text: text):
        sentence = f"{tool} {' '.join(arguments)}".replace(WORK + "/", "")
        (code, text), (wanted_code, wanted) = self.run(tool, arguments)
        if code == wanted_code and canonical(parts(text)) == canonical(parts(wanted)):
            ok(sentence)
        else:
            # The others are worth knowing, too.
            self.differ.append(sentence)
            print(f"not ok {sentence}\n{code}\n{text}\ninstead of {wanted_code}\n{wanted}", flush=True)


def features(pair):
    # Other features have other levels where what they stand for is not there.
    levels = lambda text: "\n".join(line for line in text.splitlines() if "transaction.version" in line)
    pair.same("kafka-features", "describe", parts=levels)
    pair.same("kafka-features", "version-mapping")
    pair.same("kafka-features", "upgrade", "--feature", "transaction.version=2", "--dry-run")
    pair.same("kafka-features", "upgrade", "--feature", "transaction.version=2")
    pair.same("kafka-features", "upgrade", "--feature", "transaction.version=9")
    pair.same("kafka-features", "upgrade", "--feature", "no.such.version=1")
    pair.same("kafka-features", "downgrade", "--feature", "transaction.version=1", "--dry-run")
    pair.same("kafka-features", "downgrade", "--feature", "transaction.version=1")
    pair.same("kafka-features", "describe", parts=levels)
    pair.same("kafka-features", "upgrade", "--feature", "transaction.version=2")
    pair.same("kafka-features", "disable", "--feature", "no.such.version")


def plan(name, entries):
    path = os.path.join(WORK, name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "partitions": [{"topic": topic, "partition": partition, "offset": offset} for topic, partition, offset in entries]}, file)
    return path


def offsets(pair):
    # Only the topic of the suite: which internal topics there are is each broker's own affair.
    for time in ("earliest", "latest", "max-timestamp", str(START_MS + 5000), "9999999999999", "earliest-local", "latest-tiered"):
        pair.same("kafka-get-offsets", "--topic", TOPIC, "--time", time)
    pair.same("kafka-get-offsets", "--topic-partitions", f"{TOPIC}:0-2")
    pair.same("kafka-get-offsets", "--topic", "none")
    pair.same("kafka-get-offsets", "--exclude-internal-topics")


def deletions(pair):
    tool = "kafka-delete-records"
    pair.same(tool, "--offset-json-file", plan("some.json", [(TOPIC, 0, 4), (TOPIC, 1, -1)]))
    pair.same("kafka-get-offsets", "--topic", TOPIC, "--time", "earliest")
    pair.same(tool, "--offset-json-file", plan("less.json", [(TOPIC, 0, 2)]))
    pair.same(tool, "--offset-json-file", plan("beyond.json", [(TOPIC, 2, 1000)]))
    pair.same(tool, "--offset-json-file", plan("twice.json", [(TOPIC, 2, 1), (TOPIC, 2, 2)]))
    pair.same("kafka-get-offsets", "--topic", TOPIC, "--time", "earliest")


def directories(pair):
    pair.same("kafka-log-dirs", "--describe", "--topic-list", TOPIC, parts=partitions_sorted)
    pair.same("kafka-log-dirs", "--describe", "--topic-list", TOPIC, "--broker-list", "1", parts=partitions_sorted)
    pair.same("kafka-log-dirs", "--describe", "--topic-list", "none", parts=partitions_sorted)
    pair.same("kafka-log-dirs", "--describe", "--topic-list", TOPIC, "--broker-list", "9")


def partitions_sorted(text):
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("{"):
            described = json.loads(line)
            for broker in described["brokers"]:
                for directory in broker["logDirs"]:
                    directory["partitions"].sort(key=lambda partition: partition["partition"])
            lines[at] = json.dumps(described, separators=(",", ":"))
    return "\n".join(lines)


def transactions(pair):
    tool = "kafka-transactions"
    without_ids = lambda text: re.sub(r"(?m)^(beside-producer\s+\S+\s+)\d+", r"\1ID", text)
    pair.same(tool, "list", parts=without_ids)
    columns = lambda text: re.sub(r"\b\d+\b", "N", text)
    pair.same(tool, "describe", "--transactional-id", "beside-producer", parts=columns)
    pair.same(tool, "describe", "--transactional-id", "none")
    pair.same(tool, "describe-producers", "--topic", TOPIC, "--partition", "0", parts=columns)
    pair.same(tool, "find-hanging", "--broker-id", "1")
    pair.same(tool, "find-hanging", "--topic", TOPIC)


def groups(pair):
    pair.same("kafka-groups", "--list")
    pair.same("kafka-groups", "--list", "--consumer")
    pair.same("kafka-groups", "--list", "--group-type", "classic")
    pair.same("kafka-groups", "--list", "--protocol", "consumer")
    pair.same("kafka-consumer-groups", "--describe", "--group", "beside-group")


def main():
    overrides = {"group.initial.rebalance.delay.ms": 0}
    small = overrides | {"offsets.topic.num.partitions": 1, "transaction.state.log.num.partitions": 1}
    tested = Broker("tested", overrides=small if AGAINST_KAFKA else overrides)
    reference = Broker("reference", overrides=small, is_kafka=True)
    for broker in (tested, reference):
        broker.start()
        fill(broker.bootstrap())
    pair = Pair(tested.bootstrap(), reference.bootstrap())
    features(pair)
    offsets(pair)
    deletions(pair)
    directories(pair)
    transactions(pair)
    groups(pair)
    tested.stop()
    reference.stop()
    sys.exit(1 if pair.differ else 0)


main()
