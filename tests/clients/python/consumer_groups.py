"""Consumer groups whose assignment the broker computes (KIP-848), with confluent-kafka (librdkafka) and Java's consumer: members
join, leave, crash and come back, subscribe by patterns, and share a group with members of the classic protocol while it changes
from one type to the other."""

import threading

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from checks import AGAINST_KAFKA, KAFKA_BIN, Process, kafka_tool, must, ok, require, wait_for
from cluster import FAST_GROUPS, Broker

PARTITIONS = 6
broker = Broker("groups", FAST_GROUPS)
broker.start()
BOOTSTRAP = broker.bootstrap()
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def create(topic, partitions=PARTITIONS):
    for created in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        created.result()


def fill(topic, count, first=0, partitions=PARTITIONS):
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    for number in range(first, first + count):
        producer.produce(topic, str(number), partition=number % partitions)
    producer.flush()


class Member:
    """A consumer in a thread of its own, which tells what it has been given and what it has read."""

    def __init__(self, name, group, topics, **settings):
        self.name, self.read, self.lost, self.owned = name, [], 0, set()
        self.ending = threading.Event()
        self.consumer = Consumer({
            "bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest", "topic.metadata.refresh.interval.ms": 500,
            **({"group.protocol": "consumer"} if "group.protocol" not in settings else {}), **settings,
        })
        self.consumer.subscribe(topics, on_lost=self._lost)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _lost(self, _consumer, _partitions):
        self.lost += 1

    def _run(self):
        while not self.ending.is_set():
            message = self.consumer.poll(0.05)
            if message is not None and message.error() is None:
                self.read.append(message.value().decode())
            self.owned = {(one.topic, one.partition) for one in self.consumer.assignment()}
        self.owned = set()
        self.consumer.close()

    def leave(self):
        self.ending.set()
        self.thread.join(60)
        require(not self.thread.is_alive(), f"{self.name} leaves")


def classic(name, group, topics, strategy):
    settings = {"group.protocol": "classic", "partition.assignment.strategy": strategy, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 200}
    return Member(name, group, topics, **settings)


def wait_balanced(members, topics, partitions=PARTITIONS):
    """Until every partition has one owner, and nobody has two more than another."""
    everything = sorted((topic, partition) for topic in topics for partition in range(partitions))

    def balanced():
        sizes = [len(member.owned) for member in members]
        owned = sorted(one for member in members for one in member.owned)
        return owned == everything and max(sizes) - min(sizes) <= 1

    wait_for(f"{[member.name for member in members]} share {topics}", balanced)


def group_of(name):
    listed = [group for group in admin.list_consumer_groups().result().valid if group.group_id == name]
    return [(group.type.name, group.state.name) for group in listed]


def joining_and_leaving():
    create("join")
    fill("join", 600)
    first = Member("first", "join", ["join"])
    wait_for("600 records are read", lambda: len(first.read) >= 600)
    second = Member("second", "join", ["join"])
    wait_balanced([first, second], ["join"])
    must(group_of("join") == [("CONSUMER", "STABLE")], "a second member gets its half of the partitions", group_of("join"))
    third = Member("third", "join", ["join"])
    wait_balanced([first, second, third], ["join"])
    fill("join", 600, 600)
    readers = [first, second, third]
    wait_for("all are read", lambda: sum(len(member.read) for member in readers) >= 1200)
    first.leave()
    wait_balanced([second, third], ["join"])
    fill("join", 600, 1200)
    wait_for("all are read", lambda: sum(len(member.read) for member in readers) >= 1800)
    read = sorted(int(value) for member in readers for value in member.read)
    must(read == list(range(1800)), "over joins and leaves every record is read once", len(read))
    described = kafka_tool("kafka-consumer-groups", "--bootstrap-server", BOOTSTRAP, "--describe", "--group", "join", "--members", "--verbose")
    must(described.count("join:") >= 2 and "CURRENT-EPOCH" in described, "Java's kafka-consumer-groups describes the members and their epochs", described)
    second.leave()
    third.leave()
    wait_for("the group is empty", lambda: group_of("join") == [("CONSUMER", "EMPTY")])
    kafka_tool("kafka-consumer-groups", "--bootstrap-server", BOOTSTRAP, "--delete", "--group", "join")
    must(group_of("join") == [], "an empty group is deleted")


def crashing_and_restarting():
    create("crash")
    fill("crash", 60)
    java = Process([
        f"{KAFKA_BIN}/kafka-console-consumer", "--bootstrap-server", BOOTSTRAP, "--topic", "crash", "--from-beginning",
        "--group", "crash", "--command-property", "group.protocol=consumer",
    ])
    wait_for("Java's consumer reads", lambda: sum(line.strip().isdigit() for line in java.lines) == 60)
    ok("Java's consumer reads with group.protocol=consumer")
    member = Member("librdkafka", "crash", ["crash"])
    wait_for("they share", lambda: len(member.owned) == PARTITIONS // 2)
    java.child.kill()
    java.child.wait(60)
    wait_balanced([member], ["crash"])
    ok("who crashed is gone after its session's time, and the other takes over from it")
    if AGAINST_KAFKA:
        # Its start takes longer than the sessions here.
        member.leave()
        return
    broker.kill()
    broker.start()
    fill("crash", 60, 60)
    wait_for("it goes on", lambda: {str(number) for number in range(60, 120)} <= set(member.read))
    must(member.lost == 0, "a member goes on over a kill of the broker and keeps what it has")
    member.leave()


def static_members():
    create("static")
    settings = {"group.instance.id": "one"}
    one, two = Member("one", "static", ["static"], **settings), Member("two", "static", ["static"])
    wait_balanced([one, two], ["static"])
    had, others = set(one.owned), set(two.owned)
    one.leave()
    again = Member("again", "static", ["static"], **settings)
    wait_for("it has what it had", lambda: again.owned == had)
    must(two.owned == others, "a static member comes back to its partitions, and nobody else is bothered")
    again.leave()
    two.leave()


def patterns():
    create("pattern-a", 2)
    create("other", 2)
    member = Member("pattern", "pattern", ["^pattern-.*"])
    wait_for("the topic is found", lambda: member.owned == {("pattern-a", 0), ("pattern-a", 1)})
    create("pattern-b", 2)
    wait_balanced([member], ["pattern-a", "pattern-b"], 2)
    admin.delete_topics(["pattern-a"])["pattern-a"].result()
    wait_balanced([member], ["pattern-b"], 2)
    ok("a pattern follows topics that come and go")
    member.leave()


def changing_type(strategy):
    topic = group = f"change-{strategy}"
    create(topic)
    members = [classic("first", group, [topic], strategy), classic("second", group, [topic], strategy)]
    wait_balanced(members, [topic])
    require(group_of(group) == [("CLASSIC", "STABLE")], "a classic group", group_of(group))
    new = Member("new", group, [topic])
    wait_balanced([*members, new], [topic])
    must(group_of(group)[0][0] == "CONSUMER", f"a group of {strategy} becomes a consumer group when a new member joins")
    members.pop(0).leave()
    wait_balanced([*members, new], [topic])
    fill(topic, 60)
    wait_for("they read", lambda: len(members[0].read) + len(new.read) >= 60)
    new.leave()
    wait_balanced(members, [topic])
    must(group_of(group) == [("CLASSIC", "STABLE")], "and a classic one when it has left", group_of(group))
    members.append(classic("third", group, [topic], strategy))
    wait_balanced(members, [topic])
    must(not any(member.lost for member in members), "nobody loses its partitions on the way")
    for member in members:
        member.leave()


joining_and_leaving()
crashing_and_restarting()
static_members()
patterns()
changing_type("range")
changing_type("cooperative-sticky")
broker.stop()
