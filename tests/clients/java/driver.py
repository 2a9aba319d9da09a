"""Java programs of these suites: compiled once, told by a line on standard input what to do, asked for one line back."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))

from checks import DEADLINE_S, KAFKA_BIN, Process, require, run
from cluster import WORK

HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.dirname(KAFKA_BIN.rstrip("/"))
CLASSES = os.path.join(WORK, "classes")


def compile_java(*names):
    """Compiled together, once: a start from the source would compile at every start."""
    with open(os.path.join(HOME, "classpath"), encoding="utf-8") as file:
        libraries = file.read().strip()
    run("javac", "-cp", libraries, "-d", CLASSES, *[os.path.join(HERE, f"{name}.java") for name in names], within=120)
    return libraries


class Java(Process):
    def __init__(self, libraries, program, *arguments):
        # Kafka's jars come first: the archive of their classes is good for a class path that begins with them.
        super().__init__([
            "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256M", f"-XX:SharedArchiveFile={HOME}/tools.jsa",
            f"-Dlog4j2.configurationFile={HOME}/tools-log4j2.properties", "-cp", f"{libraries}:{CLASSES}", program, *arguments,
        ])
        self.asked = 0

    def answer(self, *words, within=DEADLINE_S):
        """Carries a command out and gives its answer: '= ' and what it is, or '! ' and the error."""
        self.write(" ".join(str(word) for word in words) + "\n")
        self.asked += 1
        deadline = time.monotonic() + within
        while True:
            answers = [line for line in list(self.lines) if line.startswith(("= ", "! "))]
            if len(answers) >= self.asked:
                return answers[self.asked - 1]
            require(self.child.poll() is None and time.monotonic() < deadline, f"Java answers '{words}' within {within} s", "\n   ".join(self.lines[-30:]))
            time.sleep(0.005)

    def ask(self, *words, within=DEADLINE_S):
        answer = self.answer(*words, within=within)
        require(answer.startswith("= "), f"Java does '{words}'", answer)
        return answer[2:]

    def refused(self, *words):
        """The name of the exception that a command ends with."""
        answer = self.answer(*words)
        require(answer.startswith("! "), f"Java is refused '{words}'", answer)
        return answer[2:].split(":")[0]
