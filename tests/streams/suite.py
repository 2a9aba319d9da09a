"""Kafka Streams with exactly_once_v2 while the broker is killed again and again: words are counted over repartition and
changelog topics, joined and windowed; the application is killed too, and its local state deleted. In the end the
group, empty, is taken over with group.protocol=streams. Every update comes out once: a word that was there n times has the
counts 1 to n, each once and in order."""

import random
import time

from application import GROUP, KILLS, SETTINGS, Application, Feeder, Reader, check_outputs, compile_application, prepare, wait_moving

from checks import ok, wait_for
from cluster import Broker


def main():
    broker = Broker(overrides=SETTINGS)
    broker.start()
    bootstrap = broker.bootstrap()
    admin, classpath = prepare(bootstrap), compile_application()
    application, feeder, reader = Application(classpath, bootstrap, "classic", 2), Feeder(bootstrap), Reader(bootstrap, "counts")
    application.start()
    ok("a Streams application starts, with its internal topics")
    chance = random.Random(5)
    for round_number in range(KILLS):
        wait_moving(feeder, reader, f"in round {round_number}")
        if round_number == KILLS // 2:
            application.kill()
            application.forget()
            application.start()
            ok("the application goes on without its local state, from its changelogs")
        # A random moment of its work, so that kills meet every step of a transaction.
        time.sleep(chance.random() * 0.3)
        broker.kill()
        broker.start()
    wait_moving(feeder, reader, "after the last kill")
    application.stop()

    def group():
        listed = admin.list_consumer_groups().result(30).valid
        return [one.state.name for one in listed if one.group_id == GROUP]

    # Its threads do not leave when they end: a restart shall find its tasks as they were.
    wait_for("the group is empty", lambda: group() == ["EMPTY"])
    application = Application(classpath, bootstrap, "streams", 2)
    application.start()
    wait_moving(feeder, reader, "with group.protocol=streams")
    ok("the empty group goes on with group.protocol=streams")
    check_outputs(bootstrap, feeder)
    application.kill()
    broker.stop()


main()
