"""Apache Kafka's own console and performance tools: every compression, a group that commits and resumes."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import CODECS, PARTITIONS, RECORDS_PER_CODEC, Seen, expected_values, kafka_tool, key_of, must, ok, require, value_of

BOOTSTRAP = os.environ["BOOTSTRAP"]
TOPIC = "java"
TOTAL = len(CODECS) * RECORDS_PER_CODEC


def produce(codec):
    lines = "".join(f"{key_of(number)}|{value_of(codec, number)}\n" for number in range(RECORDS_PER_CODEC))
    kafka_tool(
        "kafka-console-producer", "--bootstrap-server", BOOTSTRAP, "--topic", TOPIC, "--compression-codec", codec,
        "--reader-property", "parse.key=true", "--reader-property", "key.separator=|", stdin=lines,
    )
    ok(f"kafka-console-producer produces with {codec}")


def consume(group, count, *more):
    output = kafka_tool(
        "kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", TOPIC, "--group", group, "--from-beginning",
        "--max-messages", count, "--timeout-ms", 30000, "--formatter-property", "print.key=true",
        "--formatter-property", "print.partition=true", "--formatter-property", "print.offset=true",
        "--formatter-property", "key.separator= ", *more,
    )
    found = []
    for line in output.splitlines():
        parts = re.match(r"Partition:(\d+) Offset:(\d+) (\S+) (.*)", line)
        require(parts, "the consumer prints partition, offset, key and value", line)
        found.append((int(parts[1]), int(parts[2]), parts[3], parts[4]))
    return found


def groups(group, protocol):
    more = ["--command-property", f"group.protocol={protocol}"]
    seen = Seen()
    for record in consume(group, TOTAL // 2, *more):
        seen.add(*record)
    must(len(seen.values) == TOTAL // 2, f"kafka-console-consumer in a {protocol} group reads half and commits")
    for record in consume(group, TOTAL - TOTAL // 2, *more):
        seen.add(*record)
    must(set(seen.values) == expected_values() and len(seen.values) == TOTAL, "the next goes on at the commits: everything once")
    must(seen.order_holds(), "records of a key come in the order in which they were sent")
    described = kafka_tool("kafka-consumer-groups", "--bootstrap-server", BOOTSTRAP, "--describe", "--group", group)
    rows = [line.split() for line in described.splitlines() if line.startswith(group)]
    must(sum(int(row[3]) for row in rows) == TOTAL, "kafka-consumer-groups shows the commits at the end", described)
    must(all(row[5] == "0" for row in rows), "and no lag", described)


def performance():
    topic = ["--bootstrap-server", BOOTSTRAP, "--topic", "java-perf"]
    kafka_tool("kafka-topics", "--create", *topic, "--partitions", 3)
    for codec, acks in [("none", "all"), ("lz4", "1"), ("zstd", "0")]:
        output = kafka_tool(
            "kafka-producer-perf-test", "--topic", "java-perf", "--num-records", 20000, "--record-size", 512, "--throughput", -1,
            "--bootstrap-server", BOOTSTRAP, "--command-property", f"acks={acks}", f"compression.type={codec}",
            "enable.idempotence=false", within=120,
        )
        must("20000 records sent" in output, f"kafka-producer-perf-test with {codec} and acks={acks}", output)
    output = kafka_tool(
        "kafka-consumer-perf-test", *topic, "--num-records", 60000, "--timeout", 60000, "--group", "java-perf", within=120,
    )
    row = output.strip().splitlines()[-1].split(", ")
    must(int(row[4]) >= 60000, "kafka-consumer-perf-test reads all of it", output)


def main():
    kafka_tool("kafka-topics", "--bootstrap-server", BOOTSTRAP, "--create", "--topic", TOPIC, "--partitions", PARTITIONS)
    for codec in CODECS:
        produce(codec)
    groups("java-group", "classic")
    performance()


main()
