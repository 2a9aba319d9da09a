"""Apache Kafka's own kafka-configs for topics, brokers, groups and broker-loggers: what it changes, shows and is refused."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import KAFKA_BIN, kafka_tool, must, require, run, wait_for

BOOTSTRAP = ["--bootstrap-server", os.environ["BOOTSTRAP"]]
# A logger that Kafka and Milena have: at DEBUG it writes a line for each request.
LOGGER = "kafka.request.logger"


def configs(*arguments):
    return kafka_tool("kafka-configs", *BOOTSTRAP, *arguments)


def refused(*arguments):
    """Must fail, and gives all that is printed."""
    script = '"$@" 2>&1; test $? -ne 0'
    return run("sh", "-c", script, "sh", f"{KAFKA_BIN}/kafka-configs", *BOOTSTRAP, *arguments)


def shown(name, *entity):
    """The line of one setting, once it is as it was set: Kafka's brokers hear of a change after it is answered."""
    lines = configs("--describe", "--all", *entity).splitlines()
    return next((line.strip() for line in lines if line.strip().startswith(f"{name}=")), "")


def becomes(name, value, source, *entity):
    def is_there():
        line = shown(name, *entity)
        return line.startswith(f"{name}={value} ") and f"synonyms={{{source}" in line
    wait_for(f"{name}={value} of {' '.join(entity)}", is_there, pause=0.5)


def broker_id():
    output = kafka_tool("kafka-broker-api-versions", *BOOTSTRAP)
    found = re.search(r"\(id: (\d+) rack: \S+ isFenced: false\) -> \(", output)
    require(found, "kafka-broker-api-versions names the broker", output[:500])
    return found.group(1)


def topics():
    kafka_tool("kafka-topics", *BOOTSTRAP, "--create", "--topic", "configs", "--partitions", 1)
    topic = ["--topic", "configs"]
    output = configs("--alter", *topic, "--add-config", "cleanup.policy=[compact,delete],max.message.bytes=2000")
    must("Completed updating config for topic configs." in output, "a topic's settings are changed", output)
    becomes("cleanup.policy", "compact,delete", "DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, DEFAULT_CONFIG:log.cleanup.policy=delete", *topic)
    bad = refused("--alter", *topic, "--add-config", "min.compaction.lag.ms=10,max.compaction.lag.ms=5")
    must("conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)" in bad, "settings that contradict each other are refused", bad)
    bad = refused("--describe", "--topic", "no/topic")
    must("Topic name is invalid" in bad, "a name that no topic has is refused", bad)
    output = configs("--describe", "--topic", "none")
    must("The topic 'none' doesn't exist and doesn't have dynamic config." in output, "a topic that there is not is told", output)


def brokers(broker):
    one, every = ["--broker", broker], ["--broker-defaults"]
    output = configs("--alter", *every, "--add-config", "log.retention.ms=360000000,max.connections.per.ip=1000")
    must("Completed updating default config for brokers in the cluster." in output, "settings of all brokers are changed", output)
    becomes("log.retention.ms", 360000000, "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=360000000", *one)
    output = configs("--alter", *one, "--add-config", "log.retention.ms=3600000")
    must(f"Completed updating config for broker {broker}." in output, "settings of one broker are changed", output)
    becomes("log.retention.ms", 3600000, "DYNAMIC_BROKER_CONFIG:log.retention.ms=3600000, DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=360000000", *one)
    becomes("retention.ms", 3600000, "DYNAMIC_BROKER_CONFIG:log.retention.ms=3600000", "--topic", "configs")
    must(True, "a topic has the broker's setting at once, and one broker's goes before that of all")
    configs("--alter", *one, "--delete-config", "log.retention.ms")
    becomes("log.retention.ms", 360000000, "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=360000000", *one)
    output = configs("--describe", "--entity-type", "brokers")
    must("Default configs for brokers in the cluster are:" in output and "max.connections.per.ip=1000" in output, "all brokers and their defaults are shown", output)
    configs("--alter", *every, "--delete-config", "log.retention.ms,max.connections.per.ip")
    becomes("log.retention.hours", 168, "DEFAULT_CONFIG", *one)
    wrong = [
        ("node.id=7", "Cannot update these configs dynamically: [node.id]"),
        ("log.cleaner.threads=9", "Log cleaner threads cannot be increased to more than double the current value 1"),
        ("num.io.threads=1", "value should be at least half the current value 8"),
        ("log.cleaner.dedupe.buffer.size=1000", "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread."),
        ("log.local.retention.ms=-1", "Value must not be -1 as log.retention.ms value is set as 604800000."),
        ("max.connections=0", "Invalid max.connections 0"),
        ("metric.reporters=no.such.Reporter", "Validation of dynamic config update of Set(metric.reporters) failed"),
        ("group.share.assignment.interval.ms=100000", "must be less than or equal to group.share.max.assignment.interval.ms"),
        ("message.max.bytes=many", "Invalid value many for configuration message.max.bytes: Not a number of type INT"),
    ]
    for setting, sentence in wrong:
        bad = refused("--alter", *one, "--add-config", setting)
        must(sentence in bad, f"{setting} of a running broker is refused", bad)
    bad = refused("--alter", *every, "--add-config", "sasl.enabled.mechanisms=PLAIN")
    must("Cannot update these configs at default cluster level, broker id must be specified: [sasl.enabled.mechanisms]" in bad, "what belongs to one broker is refused for all", bad)


def groups():
    group = ["--group", "configs/group 1"]
    output = configs("--alter", *group, "--add-config", "consumer.session.timeout.ms=50000,share.auto.offset.reset=earliest")
    must("Completed updating config for group configs/group 1." in output, "a group has settings before there is a group", output)
    becomes("consumer.session.timeout.ms", 50000, "DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000, DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000", *group)
    configs("--alter", *group, "--delete-config", "consumer.session.timeout.ms")
    becomes("consumer.session.timeout.ms", 45000, "DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000", *group)
    output = configs("--describe", *group)
    must("share.auto.offset.reset=earliest" in output and "consumer." not in output, "and they are taken back one by one", output)
    wrong = [
        ("no.such.config=1", "Unknown group config name: no.such.config"),
        ("consumer.session.timeout.ms=1", "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"),
        ("streams.num.standby.replicas=3", "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas"),
        ("share.isolation.level=none", "String must be one of: read_committed, read_uncommitted"),
    ]
    for setting, sentence in wrong:
        bad = refused("--alter", *group, "--add-config", setting)
        must(sentence in bad, f"{setting} of a group is refused", bad)
    bad = refused("--alter", "--entity-type", "groups", "--add-config", "consumer.session.timeout.ms=50000")
    must("An entity name must be specified with --alter of groups" in bad, "groups have no defaults", bad)


def loggers(broker):
    logger = ["--broker-logger", broker]
    require(f"{LOGGER}=" in configs("--describe", *logger), "the loggers are shown")
    output = configs("--alter", *logger, "--add-config", f"{LOGGER}=ERROR")
    must(f"Completed updating config for broker-logger {broker}." in output, "the level of a logger is changed", output)
    must(f"{LOGGER}=ERROR sensitive=false synonyms={{}}" in shown(LOGGER, *logger), "and shown")
    configs("--alter", *logger, "--delete-config", LOGGER)
    root = shown("root", *logger).split()[0].removeprefix("root=")
    must(shown(LOGGER, *logger).startswith(f"{LOGGER}={root} "), "taken back, it is that of the root")
    for level in ("WARN", root):
        configs("--alter", *logger, "--add-config", f"root={level}")
        must(shown(LOGGER, *logger).startswith(f"{LOGGER}={level} "), f"which changes to {level}")
    bad = refused("--alter", *logger, "--add-config", "root=LOUD")
    must("Cannot set the log level of root to LOUD as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN" in bad, "a level that there is not is refused", bad)
    bad = refused("--alter", *logger, "--delete-config", "root")
    must("Removing the log level of the root logger is not allowed" in bad, "the root keeps a level", bad)
    bad = refused("--alter", *logger, "--add-config", "no.such.logger=INFO")
    must("Invalid broker logger(s): no.such.logger" in bad, "a logger that there is not is refused", bad)
    log = os.path.join(os.environ["WORK"], "broker", "broker.log")
    lines = lambda: sum("IncrementalAlterConfigs" in line or "INCREMENTAL_ALTER_CONFIGS" in line for line in open(log, encoding="utf-8", errors="replace"))
    before = lines()
    configs("--alter", *logger, "--add-config", f"{LOGGER}=DEBUG")
    configs("--alter", *logger, "--add-config", f"{LOGGER}=WARN")
    wait_for("a line for the request", lambda: lines() > before)
    must(True, "the broker's log has lines of requests while their logger is at DEBUG")
    after = lines()
    configs("--alter", "--group", "configs", "--add-config", "share.isolation.level=read_committed")
    must(lines() == after, "and none after", f"{after} became {lines()}")


BROKER = broker_id()
topics()
brokers(BROKER)
groups()
loggers(BROKER)
