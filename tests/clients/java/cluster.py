"""Apache Kafka's own tools for a cluster, and what they print of one broker: elections, reassignments, the quorum, registration."""

import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import KAFKA_BIN, kafka_tool, must, run

BOOTSTRAP = ["--bootstrap-server", os.environ["BOOTSTRAP"]]
WORK = os.environ["WORK"]


def refused(name, *arguments):
    """Runs a tool that must fail, and gives all that it prints."""
    script = '"$@" 2>&1; test $? -ne 0'
    return run("sh", "-c", script, "sh", f"{KAFKA_BIN}/{name}", *arguments)


def this_broker():
    described = kafka_tool("kafka-topics", *BOOTSTRAP, "--describe", "--topic", "cluster")
    return int(re.search(r"Leader: (\d+)", described).group(1))


def elections():
    elect = ["kafka-leader-election", *BOOTSTRAP, "--election-type"]
    output = kafka_tool(*elect, "preferred", "--topic", "cluster", "--partition", "0")
    must("Valid replica already elected for partitions cluster-0" in output, "kafka-leader-election finds the preferred replica elected", output)
    kafka_tool(*elect, "preferred", "--all-topic-partitions")
    output = refused(*elect, "unclean", "--topic", "none", "--partition", "0")
    must("none-0" in output, "an election of an unknown partition is refused", output)


def reassignments(broker):
    tool = ["kafka-reassign-partitions", *BOOTSTRAP]

    def plan(name, replicas):
        path = os.path.join(WORK, name)
        with open(path, "w") as file:
            json.dump({"version": 1, "partitions": [{"topic": "cluster", "partition": 0, "replicas": replicas}]}, file)
        return path

    same = plan("same.json", [broker])
    output = kafka_tool(*tool, "--execute", "--reassignment-json-file", same)
    must("Successfully started partition reassignment for cluster-0" in output, "kafka-reassign-partitions --execute", output)
    output = kafka_tool(*tool, "--verify", "--reassignment-json-file", same)
    must("Reassignment of partition cluster-0 is completed." in output, "kafka-reassign-partitions --verify", output)
    output = kafka_tool(*tool, "--list")
    must("No partition reassignments found." in output, "kafka-reassign-partitions --list", output)
    output = refused(*tool, "--execute", "--reassignment-json-file", plan("far.json", [broker + 1]))
    must(str(broker + 1) in output, "a reassignment to an unknown broker is refused", output)


def quorum(broker):
    tool = ["kafka-metadata-quorum", *BOOTSTRAP, "describe"]
    output = kafka_tool(*tool, "--status")
    must(re.search(rf"LeaderId:\s+{broker}\n", output) is not None, "kafka-metadata-quorum describe --status", output)
    output = kafka_tool(*tool, "--replication")
    must(re.search(rf"^{broker}\s.*\sLeader", output, re.MULTILINE) is not None, "kafka-metadata-quorum describe --replication", output)


def registration(broker):
    output = refused("kafka-cluster", "unregister", *BOOTSTRAP, "--id", str(broker + 1))
    must(f"Broker ID {broker + 1} is not currently registered" in output, "kafka-cluster unregister knows no stranger", output)
    output = kafka_tool("kafka-cluster", "cluster-id", *BOOTSTRAP)
    must("Cluster ID: " in output, "kafka-cluster cluster-id", output)


kafka_tool("kafka-topics", *BOOTSTRAP, "--create", "--topic", "cluster", "--partitions", 2)
BROKER = this_broker()
elections()
reassignments(BROKER)
quorum(BROKER)
registration(BROKER)
