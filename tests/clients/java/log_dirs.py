"""Replicas that move between log directories: Apache Kafka's own tools start, follow and end the moves of a topic that is
written and read meanwhile."""

import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import KAFKA_BIN, Process, kafka_tool, milena_tool, must, require, wait_for
from cluster import Broker

WORK = os.environ["WORK"]
DIRS = [os.path.join(WORK, name) for name in ("first", "second")]
TOPIC = "moving"
# Of so many bytes, so that a slow move is seen.
RECORD_BYTES = 1000
BEFORE, DURING = 40000, 30000
SLOW = 1000000

broker = Broker(overrides={"log.dirs": ",".join(DIRS), "log.segment.bytes": 4194304})
broker.start()
bootstrap = lambda: ["--bootstrap-server", broker.bootstrap()]


def produce(count, throughput):
    return Process([
        f"{KAFKA_BIN}/kafka-producer-perf-test", "--topic", TOPIC, "--num-records", count, "--record-size", RECORD_BYTES,
        "--throughput", throughput, *bootstrap(), "--command-property", "acks=all",
    ])


def sent(producer, count):
    producer.line_with(f"{count} records sent", within=180)
    producer.child.wait(60)


def described():
    """What kafka-log-dirs says of each replica of the topic: (partition, directory, is it a future one, size, lag)."""
    output = kafka_tool("kafka-log-dirs", *bootstrap(), "--describe", "--topic-list", TOPIC)
    found = []
    for of_broker in json.loads(output.strip().splitlines()[-1])["brokers"]:
        for log_dir in of_broker["logDirs"]:
            require(log_dir["error"] is None, "the log directories are online", output)
            for replica in log_dir["partitions"]:
                partition = int(replica["partition"].rsplit("-", 1)[1])
                found.append((partition, log_dir["logDir"], replica["isFuture"], replica["size"], replica["offsetLag"]))
    return sorted(found)


def places():
    return {partition: log_dir for partition, log_dir, is_future, _, _ in described() if not is_future}


def futures():
    return [replica for replica in described() if replica[2]]


def plan(name, targets):
    path = os.path.join(WORK, f"{name}.json")
    partitions = [{"topic": TOPIC, "partition": partition, "replicas": [NODE], "log_dirs": [target]} for partition, target in targets.items()]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "partitions": partitions}, file)
    return path


def reassign(action, path, *more):
    return kafka_tool("kafka-reassign-partitions", *bootstrap(), action, "--reassignment-json-file", path, *more)


def other(log_dir):
    return next(one for one in DIRS if one != log_dir)


def complete(path):
    """Waits until the tool says that every replica has moved."""
    def ended():
        output = reassign("--verify", path, "--preserve-throttles")
        with open(path, encoding="utf-8") as file:
            moves = len(json.load(file)["partitions"])
        return output if len(re.findall(r"Reassignment of replica \S+ completed successfully", output)) == moves else None
    return wait_for("the replicas have moved", ended, within=120, pause=0.2)


def moves_under_load():
    producer, before = produce(DURING, 3000), places()
    consumer = Process([
        f"{KAFKA_BIN}/kafka-console-consumer", *bootstrap(), "--topic", TOPIC, "--group", "while-it-moves", "--from-beginning",
        "--max-messages", BEFORE + DURING, "--timeout-ms", 60000, "--formatter-property", "print.offset=true",
        "--formatter-property", "print.partition=true", "--formatter-property", "print.value=false",
    ])
    path = plan("there", {partition: other(log_dir) for partition, log_dir in before.items()})
    output = reassign("--execute", path)
    must(output.count("Successfully started moving log directory to") == 2, "kafka-reassign-partitions starts the moves", output)
    complete(path)
    must(True, "and says that they are complete")
    must(places() == {partition: other(log_dir) for partition, log_dir in before.items()}, "kafka-log-dirs shows the replicas where they are now")
    back = plan("back", before)
    reassign("--execute", back)
    complete(back)
    must(places() == before, "and back again")
    sent(producer, DURING)
    consumer.child.wait(120)
    consumer.reader.join(60)
    offsets = {}
    for line in consumer.lines:
        row = re.match(r"Partition:(\d+)\s+Offset:(\d+)", line)
        if row:
            offsets.setdefault(int(row[1]), []).append(int(row[2]))
    must(sum(map(len, offsets.values())) == BEFORE + DURING, "the consumer has read everything", "\n   ".join(consumer.lines[-20:]))
    must(all(seen == list(range(len(seen))) for seen in offsets.values()), "each record once and in its order")


def slow_moves():
    before = places()
    path = plan("slow", {0: other(before[0])})
    reassign("--execute", path, "--replica-alter-log-dirs-throttle", SLOW)
    found = wait_for("the future replica is there", lambda: [replica for replica in futures() if replica[3] > 0])
    must(found[0][:2] == (0, other(before[0])) and found[0][4] > 0, "a throttled move shows a future replica that lags", found)
    output = reassign("--verify", path, "--preserve-throttles")
    must("is still in progress" in output, "kafka-reassign-partitions --verify says so", output)
    reassign("--execute", plan("stay", {0: before[0]}), "--additional")
    must(not futures() and places() == before, "a move to where the replica is cancels it")
    reassign("--execute", path, "--additional", "--replica-alter-log-dirs-throttle", SLOW)
    wait_for("the future replica is there", futures)
    broker.kill()
    broker.start()
    wait_for("the future replica is there after a kill", lambda: futures() or places() != before)
    must(True, "after kill -9 the move goes on")
    kafka_tool(
        "kafka-configs", *bootstrap(), "--alter", "--entity-type", "brokers", "--entity-name", NODE,
        "--delete-config", "replica.alter.log.dirs.io.max.bytes.per.second",
    )
    complete(path)
    must(places()[0] == other(before[0]), "and without the throttle it ends soon")


def same_as_kafkas():
    """Milena's own tool prints what Kafka's prints."""
    def normal(text):
        lines = text.strip().splitlines()
        parsed = json.loads(lines[-1])
        for of_broker in parsed["brokers"]:
            of_broker["logDirs"].sort(key=lambda log_dir: log_dir["logDir"])
            for log_dir in of_broker["logDirs"]:
                log_dir["partitions"].sort(key=lambda replica: replica["partition"])
        return lines[:-1], parsed
    arguments = [*bootstrap(), "--describe", "--broker-list", NODE, "--topic-list", TOPIC]
    mine, reference = milena_tool("kafka-log-dirs", *arguments), kafka_tool("kafka-log-dirs", *arguments)
    must(normal(mine) == normal(reference), "kafka-log-dirs prints what Kafka's prints", f"{mine}\n{reference}")


kafka_tool("kafka-topics", *bootstrap(), "--create", "--topic", TOPIC, "--partitions", 2)
NODE = int(re.search(r"Leader: (\d+)", kafka_tool("kafka-topics", *bootstrap(), "--describe", "--topic", TOPIC)).group(1))
sent(produce(BEFORE, -1), BEFORE)
moves_under_load()
slow_moves()
same_as_kafkas()
broker.stop()
