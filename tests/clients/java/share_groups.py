"""Share groups with Java's KafkaShareConsumer: implicit and explicit acknowledgement of every type, what is delivered again
and how often, many consumers of one partition, where a group begins, what of transactions it sees, its administration, and
kills of the broker in between."""

import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from driver import Java, compile_java

from checks import AGAINST_KAFKA, DEADLINE_S, kafka_tool, must, ok, require, wait_for
from cluster import FAST_SHARE_GROUPS, Broker

KILLS = 1 if AGAINST_KAFKA else 5
LOCK_S = 3
NOT_BEGUN = 1_000_000_000
EXPLICIT = "share.acknowledgement.mode=explicit"
FEW = ["share.acquire.mode=record_limit", "max.poll.records=10"]
libraries = compile_java("Commands", "ShareGroups")
broker = Broker("share", FAST_SHARE_GROUPS)
broker.start()
BOOTSTRAP = broker.bootstrap()
admin = AdminClient({"bootstrap.servers": BOOTSTRAP, "log_level": 0})
# One that lives to the end, and one that is there to be killed.
java, victim = Java(libraries, "ShareGroups", BOOTSTRAP), Java(libraries, "ShareGroups", BOOTSTRAP)


def create(topic, partitions=1):
    for created in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        created.result()


def fill(topic, values, partition=0, settings=None):
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "linger.ms": 20, **(settings or {})})
    for value in values:
        producer.produce(topic, value, partition=partition)
    require(producer.flush(DEADLINE_S) == 0, "records are sent")


def values(name, first, last):
    return [f"{name}-{number}" for number in range(first, last)]


def group(name, **settings):
    java.ask("config", name, *[f"share.{key.replace('_', '.')}={value}" for key, value in {"auto_offset_reset": "earliest", **settings}.items()])


class Record:
    def __init__(self, told):
        partition, offset, deliveries, self.value = told.split(":", 3)
        self.at, self.deliveries = f"{partition}-{offset}", int(deliveries)


class Member:
    """A share consumer that is stepped."""

    def __init__(self, name, group_name, topic, *settings, host=java):
        self.name, self.host = name, host
        host.ask("open", name, group_name, topic, *settings)

    def poll(self, millis=300):
        return [Record(told) for told in self.host.ask("poll", self.name, millis).split()]

    def some(self):
        """What the first poll gives that gives anything."""
        return wait_for(f"{self.name} is given records", self.poll, pause=0)

    def take(self, count):
        """Polls until so many records have come; each poll acknowledges, implicitly, what the one before gave."""
        taken, deadline = [], time.monotonic() + DEADLINE_S
        while len(taken) < count:
            require(time.monotonic() < deadline, f"{self.name} reads {count} records", [record.value for record in taken])
            taken.extend(self.poll())
        return taken

    def mark(self, kind, records):
        self.host.ask("acknowledge", self.name, kind, *[record.at for record in records])

    def commit(self):
        return self.host.ask("commit", self.name)

    def leave(self):
        self.host.ask("close", self.name)


def lags(group_name):
    """How many records of each partition the group has not settled. (The start offset that is stored may be behind what is
    settled by one write, also Apache Kafka's.)"""
    told = [partition.rsplit(":", 1)[1] for partition in java.ask("offsets", group_name).split()]
    return [NOT_BEGUN if lag in ("none", "-") else int(lag) for lag in told]


def wait_settled(group_name, left=0):
    wait_for(f"{group_name} has {left} records left", lambda: sum(lags(group_name)) == left)


def where_a_group_begins():
    create("reset")
    fill("reset", values("old", 0, 10))
    group("early")
    early = Member("early", "early", "reset")
    must([record.value for record in early.take(10)] == values("old", 0, 10), "share.auto.offset.reset=earliest: a group begins with what was there")
    late, seen, number = Member("late", "late", "reset"), [], 0
    while not seen:
        # The group's place in the log is decided when it first fetches, so something new comes until it sees it.
        require(number < 200, "a group at the log's end sees what comes")
        fill("reset", [f"new-{number}"])
        number += 1
        seen = late.poll()
    must(all(record.value.startswith("new-") for record in seen), "share.auto.offset.reset is latest by default: it begins with what comes", seen[0].value)
    early.leave()
    late.leave()


def implicitly():
    create("implicit")
    fill("implicit", values("i", 0, 30))
    group("implicit")
    first = Member("implicit-1", "implicit", "implicit")
    records = first.take(30)
    must([(record.value, record.deliveries) for record in records] == [(value, 1) for value in values("i", 0, 30)], "all records come in order, each for the first time")
    must(first.commit() == "ok", "commitSync acknowledges what was delivered")
    wait_settled("implicit")
    fill("implicit", ["after"])
    require([record.value for record in first.some()] == ["after"], "the next record comes")
    require(first.poll() == [], "the next poll acknowledges it")
    wait_settled("implicit")
    ok("the next poll acknowledges what the last one gave")
    fill("implicit", ["returned"])
    require([record.value for record in first.some()] == ["returned"], "the next record comes")
    first.leave()
    second = Member("implicit-2", "implicit", "implicit")
    again = second.some()
    must([(record.value, record.deliveries) for record in again] == [("returned", 2)], "who leaves without acknowledging gives its records back")
    second.leave()


def explicitly():
    create("explicit")
    fill("explicit", values("e", 0, 8))
    group("explicit")
    member = Member("explicit", "explicit", "explicit", EXPLICIT)
    records = member.take(8)
    require(len(records) == 8, "all come with one poll")
    must(java.refused("poll", "explicit", 100) == "IllegalStateException", "nothing more comes until all is acknowledged")
    for kind, marked in (("accept", records[:4]), ("release", records[4:6]), ("reject", records[6:7]), ("renew", records[7:])):
        member.mark(kind, marked)
    must(member.commit() == "ok", "one batch is accepted, released, rejected and renewed record by record")
    wait_settled("explicit", 3)
    seen = {}

    def all_again():
        for record in member.poll():
            seen[record.value] = record.deliveries
            member.mark("accept", [record])
        return len(seen) == 3

    wait_for(f"what was not settled comes again: {seen}", all_again, pause=0)
    must(seen == {"e-4": 2, "e-5": 2, "e-7": 1}, "released records are delivered a second time, a renewed one stays, accepted and rejected ones are gone", seen)
    require(member.commit() == "ok", "they are accepted")
    wait_settled("explicit")
    ok("and Admin tells that nothing is left")
    member.leave()


def delivery_limit():
    create("limit")
    fill("limit", ["poison", "good"])
    group("limit", delivery_count_limit=3)
    member = Member("limit", "limit", "limit", EXPLICIT)
    deliveries = []

    def archived():
        for record in member.poll():
            if record.value == "poison":
                deliveries.append(record.deliveries)
            member.mark("release" if record.value == "poison" else "accept", [record])
        return lags("limit") == [0]

    wait_for(f"the group passes the record after {deliveries}", archived, pause=0)
    must(deliveries == [1, 2, 3], "a record that is released again and again is delivered up to share.delivery.count.limit", deliveries)
    member.leave()


def locks():
    create("lock")
    fill("lock", ["held"])
    group("lock", record_lock_duration_ms=LOCK_S * 1000)
    holder, other = Member("holder", "lock", "lock", EXPLICIT), Member("other", "lock", "lock", EXPLICIT)
    held = holder.some()
    must(java.ask("lock", "holder") == str(LOCK_S * 1000), "a consumer is told its group's share.record.lock.duration.ms")
    until = time.monotonic() + 2 * LOCK_S
    while time.monotonic() < until:
        holder.mark("renew", held)
        require(holder.commit() == "ok", "the lock is renewed")
        require(other.poll(200) == [], "nobody else is given what is held")
        held = holder.some()
    ok("who renews keeps a record for longer than the lock's time, and nobody else is given it")
    again = other.some()
    must([(record.value, record.deliveries) for record in again] == [("held", 2)], "when the lock's time is over the record is delivered to another")
    holder.mark("accept", held)
    told = holder.commit()
    must(told == "InvalidRecordStateException", "who was too late is told", told)
    other.mark("accept", again)
    require(other.commit() == "ok", "it is accepted")
    wait_settled("lock")
    holder.leave()
    other.leave()


def crash_of_a_consumer():
    create("crash")
    fill("crash", values("c", 0, 20))
    group("crash")
    dies = Member("dies", "crash", "crash", EXPLICIT, host=victim)
    records = dies.take(20)
    dies.mark("accept", records[:10])
    require(dies.commit() == "ok", "half is accepted")
    victim.kill()
    heir = Member("heir", "crash", "crash")
    inherited = heir.take(10)
    must([(record.value, record.deliveries) for record in inherited] == [(value, 2) for value in values("c", 10, 20)], "what a crashed consumer had not acknowledged is delivered to another")
    heir.leave()


def sharing():
    create("shared")
    group("shared")
    names = [f"sharer-{number}" for number in range(3)]
    for name in names:
        java.ask("open", name, "shared", "shared", *FEW)
        java.ask("run", name)
    for first in range(0, 2000, 20):
        fill("shared", values("s", first, first + 20), settings={"linger.ms": 0})
    read = lambda: [java.ask("read", name).split() for name in names]
    wait_for("all is read", lambda: sum(map(len, read())) >= 2000)
    wait_settled("shared")
    parts = read()
    must(sorted(value for part in parts for value in part) == sorted(values("s", 0, 2000)), "three consumers share one partition, each record is delivered once", list(map(len, parts)))
    must(all(parts), "and each of them has its share", list(map(len, parts)))
    for name in names:
        java.ask("close", name)


def isolation():
    create("isolation")
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "transactional.id": "share-isolation", "log_level": 0})
    producer.init_transactions(DEADLINE_S)
    for number in range(4):
        producer.begin_transaction()
        for value in values(f"{'aborted' if number % 2 else 'kept'}-{number}", 0, 5):
            producer.produce("isolation", value, partition=0)
        require(producer.flush(DEADLINE_S) == 0, "what will be aborted is sent before")
        (producer.abort_transaction if number % 2 else producer.commit_transaction)(DEADLINE_S)
    fill("isolation", ["plain"])
    group("committed", isolation_level="read_committed")
    group("uncommitted")
    member = Member("committed", "committed", "isolation")
    kept = values("kept-0", 0, 5) + values("kept-2", 0, 5) + ["plain"]
    must([record.value for record in member.take(11)] == kept, "share.isolation.level=read_committed: what was aborted is not delivered")
    member.leave()
    member = Member("uncommitted", "uncommitted", "isolation")
    must(len({record.value for record in member.take(21)}) == 21, "read_uncommitted, the default: it is")
    member.leave()


def administration():
    create("admin", 6)
    for partition in range(6):
        fill("admin", values(f"a{partition}", 0, 10), partition)
    group("admin")
    members = [Member(f"admin-{number}", "admin", "admin") for number in range(2)]
    read = []

    def all_read():
        for member in members:
            read.extend(member.poll(100))
        return len(read) >= 60

    wait_for("all is read", all_read, pause=0)
    for member in members:
        member.commit()
    wait_for("three each", lambda: java.ask("describe", "admin") == "Stable 3 3")
    must(java.ask("list", "admin") == "Share share Stable", "Admin lists a share group, and describes its members with their assignments")
    must(java.refused("alter", "admin", "admin", 0, 0) == "GroupNotEmptyException", "offsets of a group with members are not altered")
    must(java.refused("delete", "admin") == "GroupNotEmptyException", "nor is it deleted")
    for member in members:
        member.leave()
    wait_for("it is empty", lambda: java.ask("list", "admin") == "Share share Empty")
    wait_settled("admin")
    told = kafka_tool("kafka-share-groups", "--bootstrap-server", BOOTSTRAP, "--describe", "--group", "admin")
    rows = [line.split() for line in told.splitlines() if line.startswith("admin ")]
    must(sorted((row[2], row[-1]) for row in rows) == [(str(partition), "0") for partition in range(6)], "kafka-share-groups tells where it is", told)
    java.ask("alter", "admin", "admin", 3, 4)
    member = Member("admin-altered", "admin", "admin")
    must([(record.value, record.deliveries) for record in member.take(6)] == [(value, 1) for value in values("a3", 4, 10)], "it goes on where its offset was altered to")
    member.commit()
    member.leave()
    java.ask("forget", "admin", "admin")
    must(lags("admin") == [], "the offsets of a topic are deleted", lags("admin"))
    member = Member("admin-anew", "admin", "admin")
    must(len({record.value for record in member.take(60)}) == 60, "and the group begins anew")
    member.leave()
    wait_for("it is empty", lambda: java.ask("list", "admin") == "Share share Empty")
    java.ask("delete", "admin")
    must(java.ask("list", "admin") == "none", "an empty group is deleted")


def console():
    create("console")
    fill("console", values("k", 0, 5))
    group("console")
    told = kafka_tool("kafka-console-share-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", "console", "--group", "console", "--max-messages", "5")
    must(sorted(told.split()) == values("k", 0, 5), "kafka-console-share-consumer reads", told)


def kills_of_the_broker():
    create("kill")
    total = 60 + KILLS * 60
    fill("kill", values("b", 0, total), settings={"batch.num.messages": 7, "linger.ms": 1})
    group("kill")
    member = Member("kill", "kill", "kill", EXPLICIT, *FEW)
    certain, perhaps = set(), set()

    def step():
        records = member.poll()
        require(not certain & {record.value for record in records}, "what was acknowledged is not delivered again", [record.value for record in records if record.value in certain])
        return records

    def acknowledge(records):
        member.mark("accept", records)
        (certain if member.commit() == "ok" else perhaps).update(record.value for record in records)

    for round_number in range(KILLS):
        goal = 40 * (round_number + 1)

        def reached():
            records = step()
            if records:
                acknowledge(records)
            return len(certain) >= goal

        wait_for(f"{goal} are acknowledged", reached, within=120, pause=0)
        held = member.some()
        require(not certain & {record.value for record in held}, "what was acknowledged is not delivered again")
        broker.kill()
        broker.start()
        acknowledge(held)

    def whole():
        records = step()
        if records:
            acknowledge(records)
        return len(certain | perhaps) == total and lags("kill") == [0]

    wait_for(f"all are acknowledged: {len(certain)} and {len(perhaps)} of {total}", whole, within=120, pause=0)
    must(len(certain) > total // 2, f"over {KILLS} kills of the broker nothing is delivered again that was acknowledged, and nothing is left out", (len(certain), len(perhaps)))
    member.leave()


where_a_group_begins()
implicitly()
explicitly()
delivery_limit()
locks()
crash_of_a_consumer()
sharing()
isolation()
administration()
console()
kills_of_the_broker()
java.kill()
broker.stop()
