"""Apache Kafka's own administration tools and what they print: topics, configurations, groups, offsets, records."""

import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import KAFKA_BIN, kafka_tool, must, require, run, wait_for

BOOTSTRAP = ["--bootstrap-server", os.environ["BOOTSTRAP"]]
WORK = os.environ["WORK"]


def refused(name, *arguments):
    """Runs a tool that must fail, and gives all that it prints."""
    script = '"$@" 2>&1; test $? -ne 0'
    return run("sh", "-c", script, "sh", f"{KAFKA_BIN}/{name}", *arguments)


def rows(output, first):
    return [line.split() for line in output.splitlines() if line.split()[:1] == [first]]


def topics():
    tool = lambda *arguments: kafka_tool("kafka-topics", *BOOTSTRAP, *arguments)
    output = tool("--create", "--topic", "admin", "--partitions", 3, "--config", "retention.ms=7200000", "--config", "max.message.bytes=20000")
    must("Created topic admin." in output, "kafka-topics --create", output)
    must("admin" in tool("--list").split(), "kafka-topics --list")
    described = tool("--describe", "--topic", "admin")
    must("PartitionCount: 3\tReplicationFactor: 1" in described, "kafka-topics --describe: partitions", described)
    must("retention.ms=7200000" in described and "max.message.bytes=20000" in described, "kafka-topics --describe: configs", described)
    must(len(re.findall(r"Leader: \d+\tReplicas: \d+\tIsr: \d+", described)) == 3, "kafka-topics --describe: leaders", described)
    tool("--alter", "--topic", "admin", "--partitions", 5)
    must("PartitionCount: 5" in tool("--describe", "--topic", "admin"), "kafka-topics --alter adds partitions")
    again = refused("kafka-topics", *BOOTSTRAP, "--create", "--topic", "admin")
    must("Topic 'admin' already exists." in again, "a topic that exists is refused", again)
    fewer = refused("kafka-topics", *BOOTSTRAP, "--alter", "--topic", "admin", "--partitions", 2)
    must("would not be an increase" in fewer, "fewer partitions are refused", fewer)
    bad = refused("kafka-topics", *BOOTSTRAP, "--create", "--topic", "bad", "--config", "cleanup.policy=nonsense")
    must("nonsense" in bad, "a bad value is refused by name", bad)
    bad = refused("kafka-topics", *BOOTSTRAP, "--create", "--topic", "bad", "--replication-factor", 3)
    must("replication factor" in bad.lower(), "more replicas than brokers are refused", bad)
    bad = refused("kafka-topics", *BOOTSTRAP, "--create", "--topic", "not/a/name")
    must("Topic name is invalid: 'not/a/name' contains one or more characters" in bad, "an illegal name is refused", bad)


def configurations():
    tool = lambda *arguments: kafka_tool("kafka-configs", *BOOTSTRAP, *arguments)
    topic = ["--entity-type", "topics", "--entity-name", "admin"]
    output = tool("--alter", *topic, "--add-config", "cleanup.policy=[compact,delete],segment.bytes=1048576")
    must("Completed updating config for topic admin." in output, "kafka-configs --alter --add-config", output)
    described = tool("--describe", *topic)
    must("cleanup.policy=compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete" in described, "kafka-configs --describe shows value and source", described)
    tool("--alter", *topic, "--delete-config", "cleanup.policy")
    described = tool("--describe", *topic)
    must("cleanup.policy" not in described and "segment.bytes=1048576" in described, "kafka-configs --delete-config takes one back", described)
    everything = tool("--describe", "--all", *topic)
    must("cleanup.policy=delete sensitive=false synonyms={DEFAULT_CONFIG:log.cleanup.policy=delete}" in everything, "kafka-configs --describe --all shows defaults", everything)
    broker = kafka_tool("kafka-configs", *BOOTSTRAP, "--describe", "--all", "--entity-type", "brokers", "--entity-name", broker_id())
    must("log.retention.hours=168 sensitive=false" in broker, "kafka-configs --describe --all of the broker", broker[:3000])
    bad = refused("kafka-configs", *BOOTSTRAP, "--alter", *topic, "--add-config", "retention.ms=soon")
    must("soon" in bad, "a bad value is refused by name", bad)
    bad = refused("kafka-configs", *BOOTSTRAP, "--alter", *topic, "--add-config", "no.such.config=1")
    must("no.such.config" in bad, "an unknown configuration is refused by name", bad)


def broker_id():
    output = kafka_tool("kafka-broker-api-versions", *BOOTSTRAP)
    found = re.search(r"\(id: (\d+) rack: \S+ isFenced: false\) -> \(", output)
    require(found, "kafka-broker-api-versions names the broker", output[:500])
    return found.group(1)


def versions():
    output = kafka_tool("kafka-broker-api-versions", *BOOTSTRAP)
    usable = re.findall(r"^\t(\w+)\((\d+)\): .*\[usable: (\d+)\]", output, re.MULTILINE)
    names = {name for name, _, _ in usable}
    wanted = {"Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch", "FindCoordinator", "JoinGroup"}
    must(wanted <= names, "kafka-broker-api-versions lists what clients need as usable", output)


def groups():
    tool = lambda *arguments: kafka_tool("kafka-consumer-groups", *BOOTSTRAP, *arguments)
    kafka_tool("kafka-topics", *BOOTSTRAP, "--create", "--topic", "admin-groups", "--partitions", 2)
    lines = "".join(f"value {number}\n" for number in range(40))
    kafka_tool("kafka-console-producer", *BOOTSTRAP, "--topic", "admin-groups", stdin=lines)
    kafka_tool("kafka-console-consumer", *BOOTSTRAP, "--topic", "admin-groups", "--group", "admin-group", "--from-beginning", "--max-messages", 40, "--timeout-ms", 30000)
    must("admin-group" in tool("--list").split(), "kafka-consumer-groups --list")
    offsets = rows(tool("--describe", "--group", "admin-group"), "admin-group")
    must(sum(int(row[3]) for row in offsets) == 40 and all(row[3] == row[4] for row in offsets), "--describe shows the commits", offsets)
    state = tool("--describe", "--group", "admin-group", "--state")
    must("Empty" in state, "--describe --state of a group that all have left", state)
    reset = ["--reset-offsets", "--group", "admin-group", "--topic", "admin-groups"]
    plan = tool(*reset, "--to-earliest", "--dry-run")
    must([row[3] for row in rows(plan, "admin-group")] == ["0", "0"], "--reset-offsets --to-earliest --dry-run plans", plan)
    must(sum(int(row[3]) for row in rows(tool("--describe", "--group", "admin-group"), "admin-group")) == 40, "and a dry run changes nothing")
    tool(*reset, "--to-earliest", "--execute")
    lag = sum(int(row[5]) for row in rows(tool("--describe", "--group", "admin-group"), "admin-group"))
    must(lag == 40, "--reset-offsets --to-earliest --execute does", lag)
    tool(*reset, "--to-latest", "--execute")
    lag = sum(int(row[5]) for row in rows(tool("--describe", "--group", "admin-group"), "admin-group"))
    must(lag == 0, "--reset-offsets --to-latest", lag)
    tool(*reset, "--to-datetime", "2020-01-01T00:00:00.000", "--execute")
    lag = sum(int(row[5]) for row in rows(tool("--describe", "--group", "admin-group"), "admin-group"))
    must(lag == 40, "--reset-offsets --to-datetime finds offsets by time", lag)
    output = tool("--delete-offsets", "--group", "admin-group", "--topic", "admin-groups:0")
    must("Successful" in output, "--delete-offsets", output)
    left = rows(tool("--describe", "--group", "admin-group"), "admin-group")
    must(len(left) == 1 and left[0][2] == "1", "and the offset is gone", left)
    output = tool("--delete", "--group", "admin-group")
    must("Deletion of requested consumer groups ('admin-group') was successful." in output, "--delete", output)
    must("admin-group" not in tool("--list").split(), "and the group is gone")
    missing = run("sh", "-c", '"$@" 2>&1', "sh", f"{KAFKA_BIN}/kafka-consumer-groups", *BOOTSTRAP, "--describe", "--group", "never-was")
    must("Group never-was not found." in missing, "a group that never was is named", missing)


def records():
    kafka_tool("kafka-topics", *BOOTSTRAP, "--create", "--topic", "admin-records", "--partitions", 1)
    kafka_tool("kafka-console-producer", *BOOTSTRAP, "--topic", "admin-records", stdin="".join(f"{n}\n" for n in range(20)))
    offsets = lambda time: kafka_tool("kafka-get-offsets", *BOOTSTRAP, "--topic", "admin-records", "--time", time).strip()
    must([offsets(-2), offsets(-1)] == ["admin-records:0:0", "admin-records:0:20"], "kafka-get-offsets earliest and latest")
    must(offsets(-3).startswith("admin-records:0:"), "kafka-get-offsets of the largest timestamp", offsets(-3))
    plan = os.path.join(WORK, "delete-records.json")
    with open(plan, "w", encoding="utf-8") as file:
        json.dump({"version": 1, "partitions": [{"topic": "admin-records", "partition": 0, "offset": 15}]}, file)
    output = kafka_tool("kafka-delete-records", *BOOTSTRAP, "--offset-json-file", plan)
    must("low_watermark: 15" in output, "kafka-delete-records moves the low watermark", output)
    must(offsets(-2) == "admin-records:0:15", "and the earliest offset with it")
    read = kafka_tool("kafka-console-consumer", *BOOTSTRAP, "--topic", "admin-records", "--from-beginning", "--max-messages", 5, "--timeout-ms", 30000)
    must(read.split() == ["15", "16", "17", "18", "19"], "a consumer from the beginning starts there", read)
    directories = kafka_tool("kafka-log-dirs", *BOOTSTRAP, "--describe", "--topic-list", "admin-records")
    described = json.loads(directories.strip().splitlines()[-1])
    partitions = described["brokers"][0]["logDirs"][0]["partitions"]
    must(partitions[0]["partition"] == "admin-records-0" and partitions[0]["size"] > 0, "kafka-log-dirs shows the partition's size", described)


def deletion():
    kafka_tool("kafka-topics", *BOOTSTRAP, "--delete", "--topic", "admin")
    wait_for("the topic is gone", lambda: "admin" not in kafka_tool("kafka-topics", *BOOTSTRAP, "--list").split())
    bad = refused("kafka-topics", *BOOTSTRAP, "--delete", "--topic", "admin")
    must("Topic 'admin' does not exist as expected" in bad, "kafka-topics --delete, and a second time is refused", bad)


topics()
configurations()
versions()
groups()
records()
deletion()
