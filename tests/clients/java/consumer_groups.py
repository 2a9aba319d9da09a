"""Consumer groups of KIP-848 with Java's consumer: members join, leave and crash, come back as static members, subscribe by
patterns that the broker resolves, choose its assignor, and take a classic group over one by one."""

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from driver import Java, compile_java

from checks import AGAINST_KAFKA, must, ok, wait_for
from cluster import FAST_GROUPS, Broker

PARTITIONS = 6
libraries = compile_java("Commands", "ConsumerGroups")
broker = Broker("groups", FAST_GROUPS)
broker.start()
BOOTSTRAP = broker.bootstrap()
admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
# One that lives to the end, and one that is there to be killed.
java, victim = Java(libraries, "ConsumerGroups", BOOTSTRAP), Java(libraries, "ConsumerGroups", BOOTSTRAP)


def create(topic, partitions=PARTITIONS):
    for created in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        created.result()


def fill(topic, numbers):
    producer = Producer({"bootstrap.servers": BOOTSTRAP})
    for number in numbers:
        producer.produce(topic, str(number), partition=number % PARTITIONS)
    producer.flush()


class Member:
    def __init__(self, name, group, subscription, host=java, **settings):
        self.name, self.host = name, host
        host.ask("open", name, group, subscription, *[f"{key.replace('_', '.')}={value}" for key, value in settings.items()])

    def owned(self):
        return set(self.host.ask("owned", self.name).split())

    def read(self):
        return self.host.ask("read", self.name).split()

    def lost(self):
        return int(self.host.ask("lost", self.name))

    def leave(self):
        self.host.ask("close", self.name)


def wait_balanced(members, topics, partitions=PARTITIONS):
    """Until every partition has one owner, and nobody has two more than another."""
    everything = sorted(f"{topic}-{partition}" for topic in topics for partition in range(partitions))

    def balanced():
        owned = [member.owned() for member in members]
        sizes = [len(one) for one in owned]
        return sorted(partition for one in owned for partition in one) == everything and max(sizes) - min(sizes) <= 1

    wait_for(f"{[member.name for member in members]} share {topics}", balanced)


def wait_read(members, count):
    wait_for(f"{count} records are read", lambda: sum(len(member.read()) for member in members) >= count)


def wait_described(group, told):
    last = []

    def is_so():
        last[:] = [java.ask("describe", group)]
        return last[0].startswith(told)

    wait_for(f"{group} is '{told}', not {last}", is_so)
    return last[0]


def joining_and_leaving():
    create("join")
    fill("join", range(600))
    first = Member("first", "join", "join")
    wait_read([first], 600)
    second, third = Member("second", "join", "join"), Member("third", "join", "join")
    wait_balanced([first, second, third], ["join"])
    told = wait_described("join", "Consumer Stable uniform")
    epoch, *members = told.split()[3:]
    must(members == [f"{epoch}:-:2:new"] * 3, "three members share six partitions, and Admin tells each one's epoch and assignment", told)
    fill("join", range(600, 1200))
    wait_read([first, second, third], 1200)
    first.leave()
    wait_balanced([second, third], ["join"])
    fill("join", range(1200, 1800))
    wait_read([first, second, third], 1800)
    read = sorted(int(value) for member in (first, second, third) for value in member.read())
    must(read == list(range(1800)), "over joins and a leave every record is read once", len(read))
    second.leave()
    third.leave()
    wait_described("join", "Consumer Empty")
    ok("when all have left the group is empty")


def patterns():
    create("pattern-a", 2)
    create("other", 2)
    # With commits of its own Java's consumer would try for a minute to commit for the topic that is gone, and only then go on.
    member = Member("pattern", "pattern", "~pattern-[a-c]", enable_auto_commit="false")
    wait_balanced([member], ["pattern-a"], 2)
    create("pattern-b", 2)
    wait_balanced([member], ["pattern-a", "pattern-b"], 2)
    admin.delete_topics(["pattern-a"])["pattern-a"].result()
    wait_balanced([member], ["pattern-b"], 2)
    ok("a SubscriptionPattern, which the broker resolves, follows topics that come and go")
    member.leave()
    wrong = Member("wrong", "pattern", "~(unclosed")
    wait_for("it is told", lambda: java.ask("failure", "wrong") == "InvalidRegularExpression")
    ok("a pattern that is none is refused")
    wrong.leave()


def static_members():
    create("static")
    # Who is away for a moment shall not be taken for gone, however busy the machine is.
    session = ConfigEntry("consumer.session.timeout.ms", "30000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, "static", incremental_configs=[session])
    admin.incremental_alter_configs([resource])[resource].result()
    one, two = Member("one", "static", "static", group_instance_id="one"), Member("two", "static", "static", group_instance_id="two")
    wait_balanced([one, two], ["static"])
    had, others = one.owned(), two.owned()
    Member("twin", "static", "static", group_instance_id="one")
    wait_for("the twin is told", lambda: java.ask("failure", "twin") != "none")
    must(java.ask("failure", "twin") == "UnreleasedInstanceIdException", "who comes with the instance id of a living member is refused", java.ask("failure", "twin"))
    one.leave()
    again = Member("again", "static", "static", group_instance_id="one")
    wait_for("it has what it had", lambda: again.owned() == had)
    must(two.owned() == others, "a static member comes back to its partitions, and nobody else is bothered")
    again.leave()
    two.leave()


def assignors():
    create("assignor-a")
    create("assignor-b")
    topics = "assignor-a,assignor-b"
    members = [Member(f"range-{number}", "assignor", topics, group_remote_assignor="range") for number in range(2)]
    halves = [{f"{topic}-{partition}" for topic in topics.split(",") for partition in half} for half in (range(3), range(3, 6))]
    wait_for("each has a range of every topic", lambda: sorted(map(sorted, (member.owned() for member in members))) == sorted(map(sorted, halves)))
    wait_described("assignor", "Consumer Stable range")
    ok("members choose the range assignor, and Admin names it")
    for member in members:
        member.leave()


def upgrade():
    create("upgrade")
    classic = {"group_protocol": "classic", "heartbeat_interval_ms": 200, "session_timeout_ms": 10_000}
    members = [Member(f"classic-{number}", "upgrade", "upgrade", **classic) for number in range(2)]
    wait_balanced(members, ["upgrade"])
    wait_described("upgrade", "Classic Stable")
    fill("upgrade", range(300))
    wait_read(members, 300)
    everyone = list(members)
    for number in range(2):
        members.append(Member(f"new-{number}", "upgrade", "upgrade"))
        everyone.append(members[-1])
        wait_balanced(members, ["upgrade"])
        members.pop(0).leave()
        wait_balanced(members, ["upgrade"])
    told = wait_described("upgrade", "Consumer Stable uniform")
    must("classic" not in told, "classic members are replaced by new ones one by one, and the group is a consumer group", told)
    fill("upgrade", range(300, 600))
    wait_read(everyone, 600)
    read = sorted(int(value) for member in everyone for value in member.read())
    must(read == list(range(600)), "over the change every record is read once", len(read))
    for member in members:
        member.leave()


def crashing():
    create("crash")
    stays, dies = Member("stays", "crash", "crash"), Member("dies", "crash", "crash", host=victim)
    wait_balanced([stays, dies], ["crash"])
    fill("crash", range(60))
    wait_read([stays, dies], 60)
    victim.kill()
    wait_balanced([stays], ["crash"])
    fill("crash", range(60, 120))
    wait_for("it reads all that comes", lambda: set(map(str, range(60, 120))) <= set(stays.read()))
    ok("who crashed is gone after its session's time, and the other takes over from it")
    if AGAINST_KAFKA:
        # Its start takes longer than the sessions here.
        stays.leave()
        return
    broker.kill()
    broker.start()
    fill("crash", range(120, 180))
    wait_for("it goes on", lambda: set(map(str, range(120, 180))) <= set(stays.read()))
    must(stays.lost() == 0, "a member goes on over a kill of the broker and keeps what it has")
    stays.leave()


joining_and_leaving()
patterns()
static_members()
assignors()
upgrade()
crashing()
java.kill()
broker.stop()
