"""kcat: every compression, a group that commits and resumes, offsets by time, metadata as JSON."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import CODECS, PARTITIONS, RECORDS_PER_CODEC, Process, Seen, expected_values, kafka_tool, key_of, must, ok, require, run, value_of, wait_for

BOOTSTRAP = os.environ["BOOTSTRAP"]
TOPIC = "kcat"
FORMAT = "%p %o %k %s\n"


def kcat(*arguments, **options):
    return run("kcat", "-b", BOOTSTRAP, *arguments, **options)


def produce(codec):
    lines = "".join(f"{key_of(number)}|{value_of(codec, number)}\n" for number in range(RECORDS_PER_CODEC))
    kcat("-P", "-t", TOPIC, "-K", "|", "-z", codec, "-X", "acks=all", stdin=lines)
    ok(f"produces with {codec}")


def member(*more):
    """kcat as a member of a group. It commits what it has printed when it is interrupted."""
    return Process([
        "kcat", "-b", BOOTSTRAP, "-G", "kcat-group", "-u", "-f", FORMAT, "-X", "auto.offset.reset=earliest",
        "-X", "session.timeout.ms=10000", *more, TOPIC,
    ])


def records(process):
    found = []
    for line in process.lines:
        parts = line.split(" ", 3)
        if len(parts) == 4 and parts[0].isdigit() and parts[1].isdigit():
            found.append((int(parts[0]), int(parts[1]), parts[2], parts[3]))
    return found


def groups():
    total = len(CODECS) * RECORDS_PER_CODEC
    first = member("-c", str(total // 2))
    first.child.wait(60)
    first.reader.join(60)
    read = records(first)
    must(len(read) == total // 2, "a consumer of a group reads half", len(read))
    second = member()
    wait_for("the rest is read", lambda: len(read) + len(records(second)) >= total)
    second.interrupt()
    seen = Seen()
    for record in read + records(second):
        seen.add(*record)
    must(set(seen.values) == expected_values() and len(seen.values) == total, "the next goes on at the commits: everything once")
    must(seen.order_holds(), "records of a key come in the order in which they were sent")
    produce_one = kcat("-P", "-t", TOPIC, "-p", "0", stdin="one more\n")
    require(produce_one == "", "kcat produces silently")
    third = member("-c", "1")
    third.child.wait(60)
    third.reader.join(60)
    must(any("one more" in line for line in third.lines), "a later member reads only what came after", third.lines)


def main():
    kafka_tool("kafka-topics", "--bootstrap-server", BOOTSTRAP, "--create", "--topic", TOPIC, "--partitions", PARTITIONS)
    for codec in CODECS:
        produce(codec)
    groups()
    metadata = json.loads(kcat("-L", "-J", "-t", TOPIC))
    must(len(metadata["topics"][0]["partitions"]) == PARTITIONS, "kcat -L shows the topic's partitions", metadata)
    end = kcat("-Q", "-t", f"{TOPIC}:0:-1").strip()
    start = kcat("-Q", "-t", f"{TOPIC}:0:-2").strip()
    must(start == f"{TOPIC} [0] offset 0" and int(end.split()[-1]) > 0, "kcat -Q gives the first and last offset", [start, end])
    everything = kcat("-C", "-t", TOPIC, "-e", "-q", "-f", FORMAT, "-o", "beginning")
    must(len(everything.splitlines()) == len(CODECS) * RECORDS_PER_CODEC + 1, "kcat -C reads everything without a group")


main()
