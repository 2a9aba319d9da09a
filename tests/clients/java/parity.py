"""Milena's tools and Apache Kafka's print the same, asked of the same broker.

Read-only commands are run by both and compared. Commands that change something are run by each on an entity of its own,
whose name is then masked. Java prints some lists in the order of a hash map, so lines are compared sorted.
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import KAFKA_BIN, MILENA, Process, must, require, wait_for

import subprocess

BOOTSTRAP = ["--bootstrap-server", os.environ["BOOTSTRAP"]]
WORK = os.environ["WORK"]


def execute(command, stdin):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def ours(tool, arguments, stdin=""):
    return execute([MILENA, tool, *BOOTSTRAP, *arguments], stdin)


def theirs(tool, arguments, stdin=""):
    return execute([f"{KAFKA_BIN}/{tool}", *BOOTSTRAP, *arguments], stdin)


def canonical(text):
    """Lines, sorted, and overrides sorted; column padding and topic ids left out."""
    text = re.sub(r"TopicId: \S+", "TopicId: ID", text)
    text = re.sub(r"(?<=Configs: )\S+", lambda found: ",".join(sorted(found[0].split(","))), text)
    return sorted(line.rstrip() for line in text.splitlines())


def same(tool, *arguments, sentence=None):
    """Both are asked the same and print the same."""
    mine, reference = ours(tool, arguments), theirs(tool, arguments)
    sentence = sentence or f"{tool} {' '.join(arguments)}"
    must(mine[0] == reference[0], f"{sentence}: exit code", f"{mine} instead of {reference}")
    must(canonical(mine[1]) == canonical(reference[1]), sentence, f"\n{mine[1]}\ninstead of\n{reference[1]}")


def alike(tool, *arguments, stdin=""):
    """Each does it to an entity of its own: OWN stands for its name."""
    results = []
    for run, name in ((ours, "owna"), (theirs, "ownb")):
        code, text = run(tool, [argument.replace("OWN", name) for argument in arguments], stdin)
        results.append((code, canonical(text.replace(name, "OWN"))))
    must(results[0] == results[1], f"{tool} {' '.join(arguments)}", f"{results[0]} instead of {results[1]}")


def topics():
    alike("kafka-topics", "--create", "--topic", "OWN", "--partitions", "3", "--replication-factor", "1")
    alike("kafka-topics", "--create", "--topic", "OWN")
    alike("kafka-topics", "--create", "--topic", "OWN", "--if-not-exists")
    alike("kafka-topics", "--create", "--topic", "OWN.with_both", "--config", "retention.ms=1000", "--config", "max.message.bytes=2000")
    alike("kafka-topics", "--create", "--topic", "OWN-manual", "--replica-assignment", "1,1")
    alike("kafka-topics", "--create", "--topic", "OWN-bad", "--replication-factor", "3")
    alike("kafka-topics", "--create", "--topic", "OWN-bad", "--partitions", "0")
    alike("kafka-topics", "--create", "--topic", "not/a/name")
    same("kafka-topics", "--list")
    same("kafka-topics", "--list", "--topic", "own.*")
    same("kafka-topics", "--describe")
    same("kafka-topics", "--describe", "--topic", "owna")
    same("kafka-topics", "--describe", "--topics-with-overrides")
    same("kafka-topics", "--describe", "--under-replicated-partitions")
    same("kafka-topics", "--describe", "--at-min-isr-partitions")
    same("kafka-topics", "--describe", "--topic", "none")
    same("kafka-topics", "--describe", "--topic", "none", "--if-exists")
    same("kafka-topics", "--list", "--describe")
    same("kafka-topics", "--describe", "--partitions", "3")
    alike("kafka-topics", "--alter", "--topic", "OWN", "--partitions", "5")
    alike("kafka-topics", "--alter", "--topic", "OWN", "--partitions", "2")
    alike("kafka-topics", "--delete", "--topic", "OWN-manual")
    alike("kafka-topics", "--delete", "--topic", "OWN-manual")
    alike("kafka-topics", "--delete", "--topic", "OWN-manual", "--if-exists")


def configs():
    alike("kafka-configs", "--alter", "--topic", "OWN", "--add-config", "cleanup.policy=[compact,delete],segment.bytes=1048576")
    same("kafka-configs", "--describe", "--topic", "owna")
    same("kafka-configs", "--describe", "--entity-type", "topics", "--entity-name", "owna", "--all")
    same("kafka-configs", "--describe", "--entity-type", "topics")
    alike("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", "OWN", "--delete-config", "cleanup.policy")
    same("kafka-configs", "--describe", "--topic", "owna")
    same("kafka-configs", "--describe", "--topic", "none")
    same("kafka-configs", "--describe", "--broker", "1")
    same("kafka-configs", "--describe", "--broker-defaults")
    same("kafka-configs", "--describe", "--entity-type", "brokers")
    alike("kafka-configs", "--alter", "--topic", "OWN", "--add-config", "no.such.config=1")
    same("kafka-configs", "--describe", "--broker", "7")
    same("kafka-configs", "--describe", "--topic", "not/a/name")
    same("kafka-configs", "--describe", "--entity-type", "brokers", "--all")
    alike("kafka-configs", "--alter", "--group", "OWN", "--add-config", "consumer.session.timeout.ms=50000,share.isolation.level=read_committed")
    alike("kafka-configs", "--alter", "--group", "OWN", "--add-config", "consumer.session.timeout.ms=1")
    same("kafka-configs", "--describe", "--group", "owna")
    same("kafka-configs", "--describe", "--entity-type", "groups", "--entity-name", "owna", "--all")
    same("kafka-configs", "--describe", "--entity-type", "groups")
    same("kafka-configs", "--describe", "--group", "none")
    alike("kafka-configs", "--alter", "--client-metrics", "OWN", "--add-config", "interval.ms=1000,metrics=[a,b]")
    same("kafka-configs", "--describe", "--client-metrics", "owna")
    same("kafka-configs", "--describe", "--entity-type", "client-metrics", "--all")
    same("kafka-configs", "--describe", "--client-metrics", "none")
    same("kafka-configs", "--describe", "--broker-logger", "1")
    same("kafka-configs", "--describe", "--broker-logger", "7")
    same("kafka-configs", "--describe", "--entity-type", "broker-loggers")
    same("kafka-configs", "--alter", "--broker-logger", "1", "--add-config", "root=WARN")
    same("kafka-configs", "--alter", "--broker-logger", "1", "--add-config", "root=INFO")
    same("kafka-configs", "--alter", "--broker-logger", "1", "--add-config", "no.such.logger=INFO")
    same("kafka-configs", "--alter", "--broker-logger", "1", "--delete-config", "root")
    quotas()


def quotas():
    alike("kafka-configs", "--alter", "--entity-type", "clients", "--entity-name", "OWN", "--add-config", "producer_byte_rate=10485760,consumer_byte_rate=1e6")
    alike("kafka-configs", "--alter", "--user", "OWN", "--client-defaults", "--add-config", "request_percentage=12.5")
    alike("kafka-configs", "--alter", "--user-defaults", "--add-config", "controller_mutation_rate=1000")
    alike("kafka-configs", "--alter", "--ip", "127.0.0.9", "--add-config", "connection_creation_rate=50")
    for entity in (["clients"], ["users"], ["ips"], ["users", "--entity-type", "clients"], ["clients", "--entity-name", "owna"], ["clients", "--entity-name", "none"]):
        same("kafka-configs", "--describe", "--entity-type", *entity)
    same("kafka-configs", "--describe", "--user", "none")
    alike("kafka-configs", "--alter", "--client", "OWN", "--add-config", "producer_byte_rate=x")
    alike("kafka-configs", "--alter", "--client", "OWN", "--add-config", "no_such=1")
    alike("kafka-configs", "--alter", "--user", "OWN", "--delete-config", "producer_byte_rate")
    alike("kafka-configs", "--alter", "--client", "OWN", "--delete-config", "consumer_byte_rate")
    code, _ = ours("kafka-configs", ["--alter", "--user-defaults", "--delete-config", "controller_mutation_rate"])
    must(code == 0, "quotas of all users are deleted")


def client_metrics():
    tool = "kafka-client-metrics"
    alike(tool, "--alter", "--name", "metrics-OWN", "--interval", "1000", "--metrics", "a,b", "--match", "client_id=x")
    alike(tool, "--alter", "--name", "metrics-OWN", "--interval=")
    alike(tool, "--alter", "--name", "metrics-OWN", "--interval", "1")
    alike(tool, "--alter", "--name", "metrics-OWN", "--match", "none=1")
    same(tool, "--list")
    same(tool, "--describe")
    same(tool, "--describe", "--name", "metrics-owna")
    same(tool, "--describe", "--name", "none")
    for wrong in (["--alter", "--interval", "5"], ["--alter", "--name", "n", "--interval", "x"], ["--delete"], ["--list", "--name", "n"], []):
        same(tool, *wrong)
    alike(tool, "--delete", "--name", "metrics-OWN")


def consoles():
    lines = "h:1\tkey-1:one\nh:2,g:3\tkey-2:two\nh:4\tkey-1:NULL\n"
    format_in = ["parse.key=true", "key.separator=:", "parse.headers=true", "null.marker=NULL"]
    properties = [part for one in format_in for part in ("--reader-property", one)]
    alike("kafka-console-producer", "--topic", "OWN", *properties, stdin=lines)
    alike("kafka-console-producer", "--topic", "OWN", "--compression-codec", "lz4", stdin="plain\n")
    alike("kafka-console-producer", "--topic", "OWN", *properties, stdin="no separator\n")
    format_out = ["print.key=true", "print.headers=true", "print.partition=true", "print.offset=true"]
    properties = [part for one in format_out for part in ("--formatter-property", one)]
    for topic in ("owna", "ownb"):
        for codec in ([], ["--isolation-level", "read_committed"]):
            same("kafka-console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "4", *properties, *codec)
    alike("kafka-console-consumer", "--topic", "OWN", "--from-beginning", "--max-messages", "4", "--group", "group-OWN")
    same("kafka-console-consumer", "--topic", "owna", "--partition", "0", "--offset", "earliest", "--timeout-ms", "2000")
    same("kafka-console-consumer", "--topic", "owna", "--from-beginning", "--offset", "1", "--partition", "0")


def offsets():
    same("kafka-get-offsets")
    for time in ("earliest", "latest", "max-timestamp", "-1", "-2", "1000", "9999999999999"):
        same("kafka-get-offsets", "--topic", "own.*", "--time", time)
    same("kafka-get-offsets", "--topic-partitions", "owna:0-2,ownb:1,.*both")
    same("kafka-get-offsets", "--topic", "owna", "--partitions", "0,2")
    same("kafka-get-offsets", "--topic", "none")
    same("kafka-get-offsets", "--time", "nonsense")


def deletions():
    """The same plan for each one's own topic, whose records are the same."""
    for name in ("owna", "ownb"):
        code, _ = theirs("kafka-console-producer", ["--topic", f"{name}.deletions"], "".join(f"record {number}\n" for number in range(10)))
        require(code == 0, "the records are there")
    path = os.path.join(WORK, "OWN.json")
    plans = {
        "some records": [(0, 4)], "fewer than are gone": [(0, 2)], "all": [(0, -1)], "more than there are": [(0, 1000)], "a partition twice": [(0, 5), (0, 6)],
    }
    for what, plan in plans.items():
        results = []
        for run, name in ((ours, "owna"), (theirs, "ownb")):
            entries = ",".join(f'{{"topic": "{name}.deletions", "partition": {partition}, "offset": {offset}}}' for partition, offset in plan)
            with open(path.replace("OWN", name), "w") as file:
                file.write(f'{{"version": 1, "partitions": [{entries}]}}')
            code, text = run("kafka-delete-records", ["--offset-json-file", path.replace("OWN", name)])
            results.append((code, canonical(text.replace(name, "OWN"))))
        must(results[0] == results[1], f"kafka-delete-records of {what}", f"{results[0]} instead of {results[1]}")
    same("kafka-get-offsets", "--topic", "own.*deletions", "--time", "earliest")
    for text in ("no JSON", "{}", '{"version": 2, "partitions": []}'):
        with open(path, "w") as file:
            file.write(text)
        same("kafka-delete-records", "--offset-json-file", path, sentence=f"kafka-delete-records of a file with {text}")
    same("kafka-delete-records", "--offset-json-file", path + ".none", sentence="kafka-delete-records of no file")
    same("kafka-delete-records")


def masked(text):
    """What was measured left out, but not how it is written."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d:\d{3}", "TIME", text)
    text = re.sub(r"\t[\d.E-]+", "\tN", text)
    return re.sub(r"-?\d+(\.\d+)?", lambda found: "N" + "." * len(found[1] or ""), text)


def measured(tool, *arguments, named=True):
    """Each loads a topic of its own: the lines are the same but for the numbers."""
    results = []
    for where, name in ((MILENA, "owna"), (KAFKA_BIN, "ownb")):
        own = [argument.replace("OWN", name) for argument in arguments]
        program = [MILENA, tool] if where == MILENA else [f"{KAFKA_BIN}/{tool}"]
        code, text = execute([*program, *(BOOTSTRAP if named else [BOOTSTRAP[1]]), *own], "")
        results.append((code, masked(text.replace(name, "OWN"))))
    must(results[0] == results[1], f"{tool} {' '.join(arguments)}", f"{results[0]} instead of {results[1]}")


def loads():
    payloads = os.path.join(WORK, "payloads")
    with open(payloads, "w") as file:
        file.write("one\n\nthree\n")
    with open(os.path.join(WORK, "client.properties"), "w") as file:
        file.write("client.id=load\n")
    producer, consumer, latency = "kafka-producer-perf-test", "kafka-consumer-perf-test", "kafka-e2e-latency"
    load = ["--topic", "OWN.load", "--num-records", "20", "--throughput", "-1"]
    measured(producer, *load, "--record-size", "100")
    measured(producer, *load, "--payload-monotonic", "--warmup-records", "10", "--command-property", "acks=1", "linger.ms=0")
    measured(producer, *load, "--payload-file", payloads, "--producer-props", "acks=all")
    measured(producer, *load, "--payload-file", payloads + ".none")
    measured(producer, *load, "--payload-monotonic", "--record-size", "1")
    measured(producer, *load, "--record-size", "1", "--warmup-records", "20")
    measured(producer, *load, "--record-size", "1", "--producer.config", os.path.join(WORK, "client.properties"))
    measured(consumer, "--topic", "OWN.load", "--num-records", "20")
    measured(consumer, "--topic", "OWN.load", "--messages", "20", "--hide-header", "--timeout")
    measured(consumer, "--include", "OWN.l.*", "--num-records", "1000", "--timeout", "5000", "--group", "load-OWN")
    measured(consumer, "--topic", "OWN.load", "--num-records", "1", "--reporting-interval", "0")
    measured(consumer, "--topic", "OWN.load")
    e2e = ["--topic", "OWN.latency", "--num-records", "1001", "--record-size", "10"]
    measured(latency, *e2e, "--producer-acks", "all")
    measured(latency, *e2e, "--producer-acks", "1", "--record-key-size", "3", "--num-headers", "2", "--record-header-size", "-1", "--record-header-key-size", "2")
    measured(latency, *e2e, "--producer-acks", "0")
    measured(latency, "OWN.latency", "10", "1", "10", named=False)


def readers_that_leave():
    """A pipe whose reader has gone is no error, for Java's tools neither."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([MILENA, "kafka-topics", *BOOTSTRAP, "--describe"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    must((done.returncode, done.stderr) == (0, ""), "a tool whose output nobody reads ends quietly", done)


def has_committed(group):
    """Whether the group has committed all that there is to read: from then on both tools see the same offsets."""
    rows = [line.split() for line in ours("kafka-consumer-groups", ["--describe", "--group", group])[1].splitlines() if line.startswith(f"{group} ")]
    return rows and all(row[3] == row[4] for row in rows)


def groups():
    same("kafka-consumer-groups", "--list")
    same("kafka-consumer-groups", "--list", "--state")
    same("kafka-consumer-groups", "--list", "--state", "Empty", "--type")
    for view in ([], ["--offsets", "--verbose"], ["--members"], ["--state"], ["--state", "--verbose"]):
        same("kafka-consumer-groups", "--describe", "--all-groups", *view)
    for scenario in (["--to-earliest"], ["--to-latest"], ["--shift-by", "-1"], ["--to-offset", "1"], ["--to-current"], ["--to-datetime", "2020-01-01T00:00:00.000Z"]):
        same("kafka-consumer-groups", "--reset-offsets", "--group", "group-owna", "--all-topics", "--dry-run", *scenario)
    same("kafka-consumer-groups", "--reset-offsets", "--group", "group-owna", "--topic", "owna:0,1", "--to-earliest", "--export", "--dry-run")
    alike("kafka-consumer-groups", "--reset-offsets", "--group", "group-OWN", "--topic", "OWN", "--to-earliest", "--execute")
    same("kafka-consumer-groups", "--describe", "--group", "group-owna")
    same("kafka-consumer-groups", "--describe", "--group", "none")
    member = Process([MILENA, "kafka-console-consumer", *BOOTSTRAP, "--topic", "owna", "--group", "group-owna"])
    wait_for("the group has a member", lambda: "Stable" in ours("kafka-consumer-groups", ["--list", "--state"])[1])
    wait_for("the member has committed", lambda: has_committed("group-owna"))
    for view in ([], ["--members"], ["--members", "--verbose"], ["--state"]):
        same("kafka-consumer-groups", "--describe", "--group", "group-owna", *view, sentence=f"kafka-consumer-groups --describe {' '.join(view)} of a group with a member")
    same("kafka-consumer-groups", "--delete", "--group", "group-owna", sentence="kafka-consumer-groups --delete of a group with a member")
    same("kafka-consumer-groups", "--reset-offsets", "--group", "group-owna", "--all-topics", "--to-earliest", "--dry-run", sentence="kafka-consumer-groups --reset-offsets of a group with a member")
    member.interrupt()
    consumer_groups()
    alike("kafka-consumer-groups", "--delete-offsets", "--group", "group-OWN", "--topic", "OWN:0")
    alike("kafka-consumer-groups", "--delete", "--group", "group-OWN")
    alike("kafka-consumer-groups", "--delete", "--group", "group-OWN")


def consumer_groups():
    """A group whose assignment the broker computes, then one that a member of the classic protocol has joined."""
    group = ["--group", "group-modern"]
    described = lambda: ours("kafka-consumer-groups", ["--describe", *group, "--members"])[1]
    modern = Process([f"{KAFKA_BIN}/kafka-console-consumer", *BOOTSTRAP, "--topic", "owna", *group, "--consumer-property", "group.protocol=consumer"])
    wait_for("the consumer group has a member", lambda: "console-consumer" in described())
    wait_for("the member has committed", lambda: has_committed("group-modern"))
    views = ([], ["--offsets", "--verbose"], ["--members"], ["--members", "--verbose"], ["--state"], ["--state", "--verbose"])
    for view in views:
        same("kafka-consumer-groups", "--describe", *group, *view, sentence=f"kafka-consumer-groups --describe {' '.join(view)} of a consumer group")
    classic = Process([MILENA, "kafka-console-consumer", *BOOTSTRAP, "--topic", "owna", *group])
    settled = lambda: [line for line in ours("kafka-consumer-groups", ["--describe", *group, "--state"])[1].splitlines() if line.split()[-2:] == ["Stable", "2"]]
    wait_for("both members have what is theirs", settled)
    for view in views:
        same("kafka-consumer-groups", "--describe", *group, *view, sentence=f"kafka-consumer-groups --describe {' '.join(view)} of a group of both protocols")
    same("kafka-consumer-groups", "--list", "--type", "consumer")
    same("kafka-consumer-groups", "--list", "--type", "--state")
    same("kafka-consumer-groups", "--delete", *group, sentence="kafka-consumer-groups --delete of a consumer group with members")
    classic.interrupt()
    modern.interrupt()
    wait_for("the members have left", lambda: "console-consumer" not in described())
    same("kafka-consumer-groups", "--describe", *group, "--state", "--verbose", sentence="kafka-consumer-groups --describe --state of an empty consumer group")
    same("kafka-consumer-groups", "--reset-offsets", *group, "--all-topics", "--to-earliest", "--dry-run", sentence="kafka-consumer-groups --reset-offsets of a consumer group")


def newer_groups():
    """Groups of the newer types, once the broker has them; each kind has members, then none."""
    known = ours("kafka-broker-api-versions", [])[1]
    has = lambda api: any(f"{api}(" in line and "UNSUPPORTED" not in line for line in known.splitlines())
    if has("ShareGroupHeartbeat") and has("DescribeShareGroupOffsets"):
        share_groups()
    if has("StreamsGroupHeartbeat"):
        streams_groups()
    for filters in ([], ["--consumer"], ["--share"], ["--streams"], ["--group-type", "classic"], ["--group-type", "Consumer"], ["--protocol", "consumer"], ["--group-type", "classic", "--protocol", "none"], ["--group-type", "none"], ["--share", "--streams"]):
        same("kafka-groups", "--list", *filters)
    same("kafka-groups")


def views(tool, group, *sorts):
    for view in sorts:
        same(tool, "--describe", "--group", group, *view)


def share_groups():
    tool, group = "kafka-share-groups", "share-own"
    for name in (group, "share-group-owna", "share-group-ownb"):
        code, _ = ours("kafka-configs", ["--alter", "--group", name, "--add-config", "share.auto.offset.reset=earliest"])
        require(code == 0, "the share group reads from the start")
    code, _ = theirs("kafka-topics", ["--create", "--topic", "share.own", "--partitions", "1"])
    require(code == 0, "the topic is there")
    code, _ = theirs("kafka-console-producer", ["--topic", "share.own"], "".join(f"record {number}\n" for number in range(10)))
    require(code == 0, "the records are there")
    columns = ["print.delivery=true", "print.offset=true", "print.partition=true", "print.epoch=true", "print.headers=true", "print.key=true"]
    columns = [part for one in columns for part in ("--formatter-property", one)]
    for acknowledgement in ([], ["--release"], ["--reject"]):
        alike("kafka-console-share-consumer", "--topic", "share.own", "--group", "share-group-OWN", "--max-messages", "2", *columns, *acknowledgement)
    alike("kafka-console-share-consumer", "--topic", "share.own", "--group", "share-group-OWN", "--reject", "--release")
    alike("kafka-console-share-consumer", "--group", "share-group-OWN")
    for name in ("share-group-owna", "share-group-ownb"):
        views(tool, name, [], ["--verbose"], ["--members"], ["--state", "--verbose"])
    member = Process([f"{KAFKA_BIN}/kafka-console-share-consumer", *BOOTSTRAP, "--topic", "share.own", "--group", group])
    member.line_with("record 9")
    settled = lambda: [line for line in ours(tool, ["--describe", "--group", group])[1].splitlines() if line.split()[-1:] == ["0"]]
    wait_for("all records are acknowledged", settled)
    same(tool, "--list")
    same(tool, "--list", "--state")
    same(tool, "--list", "--state", "stable,Empty")
    same(tool, "--list", "--state", "none")
    views(tool, group, [], ["--offsets", "--verbose"], ["--members"], ["--members", "--verbose"], ["--state"], ["--state", "--verbose"], ["--state", "Empty"])
    same(tool, "--describe", "--all-groups", "--state")
    views(tool, "none", [], ["--members"])
    same(tool, "--describe", "--group", "group-modern", "--state", sentence=f"{tool} --describe of a group of another type")
    same(tool, "--delete", "--group", group, "--group", "none", sentence=f"{tool} --delete of a group with a member")
    same(tool, "--reset-offsets", "--group", group, "--all-topics", "--to-earliest", "--dry-run", sentence=f"{tool} --reset-offsets of a group with a member")
    same(tool, "--delete-offsets", "--group", group, "--topic", "share.own", sentence=f"{tool} --delete-offsets of a group with a member")
    member.interrupt()
    wait_for("the member has left", lambda: "Empty" in ours(tool, ["--describe", "--group", group, "--state"])[1])
    reset = ["--reset-offsets", "--group", group]
    for scenario in (["--to-earliest"], ["--to-latest"], ["--to-datetime", "2020-01-01T00:00:00.000"], ["--to-datetime", "2020-01-01"], []):
        same(tool, *reset, "--all-topics", "--dry-run", *scenario)
    for topic in ("share.own", "share.own:0", "share.own:7", "none", "none:0"):
        same(tool, *reset, "--topic", topic, "--to-earliest", "--dry-run")
    same(tool, *reset, "--all-topics", "--to-earliest")
    alike(tool, "--reset-offsets", "--group", "share-group-OWN", "--topic", "share.own", "--to-earliest", "--execute")
    alike("kafka-console-share-consumer", "--topic", "share.own", "--group", "share-group-OWN", "--max-messages", "10")
    alike(tool, "--delete-offsets", "--group", "share-group-OWN", "--topic", "none")
    alike(tool, "--delete-offsets", "--group", "share-group-OWN", "--topic", "share.own")
    alike(tool, "--describe", "--group", "share-group-OWN")
    alike(tool, "--delete", "--group", "share-group-OWN")
    alike(tool, "--delete", "--group", "share-group-OWN")
    same(tool)


def streams_member(application):
    libraries = os.path.join(os.path.dirname(KAFKA_BIN.rstrip("/")), "libs")
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "StreamsGroup.java")
    state = os.path.join(WORK, f"state-{application}")
    return Process(["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{libraries}/*", program, BOOTSTRAP[1], application, "streams.in", "streams.out", state])


def streams_groups():
    tool, group = "kafka-streams-groups", "streams-owna"
    for topic in ("streams.in", "streams.out"):
        code, _ = theirs("kafka-topics", ["--create", "--topic", topic, "--partitions", "1"])
        require(code == 0, "the topic is there")
    code, _ = theirs("kafka-console-producer", ["--topic", "streams.in"], "".join(f"record {number}\n" for number in range(10)))
    require(code == 0, "the records are there")
    members = [streams_member(f"streams-{name}") for name in ("owna", "ownb")]
    for member in members:
        member.line_with("state RUNNING", 120)
    read = lambda name: [line for line in ours(tool, ["--describe", "--group", name, "--verbose"])[1].splitlines() if line.split()[-1:] == ["0"] and "-" not in line.split()[3:]]
    wait_for("all records are read", lambda: all(len(read(f"streams-{name}")) == 2 for name in ("owna", "ownb")))
    same(tool, "--list")
    same(tool, "--list", "--state")
    same(tool, "--list", "--state", "stable,NotReady")
    same(tool, "--list", "--state", "none")
    views(tool, group, [], ["--offsets"], ["--verbose"], ["--members"], ["--members", "--verbose"], ["--state"], ["--state", "--verbose"])
    same(tool, "--describe", "--all-groups", "--state")
    views(tool, "none", [], ["--members"])
    same(tool, "--describe", "--group", "group-modern", sentence=f"{tool} --describe of a group of another type")
    reset = ["--reset-offsets", "--group", group, "--dry-run"]
    same(tool, *reset, "--all-input-topics", "--to-earliest", sentence=f"{tool} --reset-offsets of a group with a member")
    same(tool, "--delete", "--group", group, "--group", "none", sentence=f"{tool} --delete of a group with a member")
    same(tool, "--delete-offsets", "--group", group, "--all-input-topics", sentence=f"{tool} --delete-offsets of a group with a member")
    for member in members:
        member.child.stdin.close()
        member.line_with("state NOT_RUNNING")
    wait_for("the members have left", lambda: "Stable" not in ours(tool, ["--list", "--state"])[1])
    views(tool, group, [], ["--members"], ["--state", "--verbose"])
    for scenario in (["--to-earliest"], ["--to-latest"], ["--to-current"], ["--shift-by", "-3"], ["--to-offset", "4"], ["--by-duration", "P1D"], ["--to-datetime", "2020-01-01T00:00:00.000"], ["--to-latest", "--export"], []):
        same(tool, *reset, "--all-input-topics", *scenario)
    for topic in ("streams.in", "streams.in:0", "streams.out", "none", "none:0"):
        same(tool, *reset, "--input-topic", topic, "--to-earliest")
    plan = os.path.join(WORK, "streams.csv")
    with open(plan, "w") as file:
        file.write("streams.in,0,3\n")
    same(tool, *reset, "--from-file", plan, sentence=f"{tool} --reset-offsets --from-file")
    same(tool, *reset, "--to-earliest")
    alike(tool, "--reset-offsets", "--group", "streams-OWN", "--execute", "--all-input-topics", "--to-earliest", "--delete-internal-topic", "none")
    alike(tool, "--delete-offsets", "--group", "streams-OWN", "--input-topic", "none")
    alike(tool, "--delete-offsets", "--group", "streams-OWN", "--all-input-topics")
    alike(tool, "--delete", "--group", "streams-OWN", "--delete-all-internal-topics")
    alike(tool, "--delete", "--group", "streams-OWN")
    same("kafka-topics", "--list")
    same(tool)


def main():
    topics()
    configs()
    client_metrics()
    consoles()
    offsets()
    groups()
    newer_groups()
    deletions()
    loads()
    readers_that_leave()
    same("kafka-broker-api-versions")
    installed = os.path.join(WORK, "bin")
    require(subprocess.run([MILENA, "install-tools", installed], capture_output=True).returncode == 0, "install-tools ends well")
    listed = subprocess.run([os.path.join(installed, "kafka-topics.sh"), *BOOTSTRAP, "--list"], capture_output=True, text=True)
    must("owna" in listed.stdout.split(), "an installed kafka-topics.sh works by its name", listed)


main()
