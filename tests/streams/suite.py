"""Kafka Streams with exactly_once_v2 while the broker is killed again and again: words are counted over repartition and
changelog topics, joined and windowed; the application is killed too, and its local state deleted. Every update comes out
once: a word that was there n times has the counts 1 to n, each once and in order."""

import random
import time

from application import KILLS, Application, Feeder, Reader, check_outputs, compile_application, prepare, wait_moving

from checks import ok
from cluster import Broker


def main():
    broker = Broker(overrides={"group.initial.rebalance.delay.ms": 0})
    broker.start()
    bootstrap = broker.bootstrap()
    prepare(bootstrap)
    application, feeder, reader = Application(compile_application(), bootstrap, "classic", 2), Feeder(bootstrap), Reader(bootstrap, "counts")
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
    feeder.feed(60)
    check_outputs(bootstrap, feeder)
    application.kill()
    broker.stop()


main()
