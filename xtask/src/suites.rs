//! The suites: each a program that talks to a broker with a real client and prints `ok SENTENCE` for what it has shown.

use crate::broker::{self, Kind};
use crate::error::{AtPath, Error, Result};
use crate::kafka;
use crate::process::{Running, child_command, own_program, root, tail, workshop};
use crate::toolchain::{Needs, go_program, node_modules, python_program};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How a suite's program is run.
#[derive(Debug, Clone, Copy)]
enum Program {
    Python(&'static str),
    /// In a network namespace of its own, so that a port may be a fixed one.
    PythonAlone(&'static str),
    /// In a mount namespace of its own, so that it may mount a small disk.
    PythonMounting(&'static str),
    Node(&'static str),
    Go(&'static str),
    /// A command of xtask itself.
    Xtask(&'static [&'static str]),
}

/// Who starts the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// xtask starts one for the suite, which finds its address in `BOOTSTRAP`.
    Given,
    /// The suite starts, kills and restarts its own.
    Own,
}

#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) proves: &'static str,
    pub(crate) needs: &'static [Needs],
    program: Program,
    host: Host,
    limit: Duration,
    /// Proves what Apache Kafka does not do.
    pub(crate) only_milena: bool,
}

const MINUTE: Duration = Duration::from_secs(60);

/// The settings of a broker that a suite is given.
const AT_ONCE: [(&str, &str); 4] = [
    // The first rebalance of a group waits for more members by default. That is for people who start many at once.
    ("group.initial.rebalance.delay.ms", "0"),
    // And nobody wants to watch retention at work for five minutes.
    ("log.retention.check.interval.ms", "500"),
    // A suite may ask for groups that notice within seconds who crashed.
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "100"),
];

/// Longest first, so that no long one is left for the end.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "kill",
        proves: "kill -9 a hundred times under load: nothing that was acknowledged is lost, doubled or moved",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/durability/kill.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(10),
        only_milena: false,
    },
    Suite {
        name: "connect",
        proves: "Kafka Connect, standalone and distributed with exactly-once sources, over kills of workers and the broker",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/connect/suite.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(8),
        only_milena: false,
    },
    Suite {
        name: "mirror-maker",
        proves: "MirrorMaker 2 from Apache Kafka: topics, settings, records, and where groups are",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/connect/mirror_maker.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(8),
        only_milena: false,
    },
    Suite {
        name: "quick-start",
        proves: "the classic quick start, unchanged, with confluent-kafka",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::PythonAlone("tests/clients/quick_start/suite.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "java-administration",
        proves: "the Java administration tools and what they print",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/administration.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "java-cluster",
        proves: "the Java tools for elections, reassignments, the quorum and registration",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/cluster.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "java-quotas",
        proves: "quotas as kafka-configs sets them, and what Java's clients feel of them",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/quotas.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "java-configs",
        proves: "the Java tool for the settings of topics, brokers and groups and for levels of the log",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/configs.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(6),
        only_milena: false,
    },
    Suite {
        name: "java-beside",
        proves: "the Java tools print the same of Apache Kafka: features, records, offsets, directories, transactions",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/beside.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(5),
        only_milena: false,
    },
    Suite {
        name: "java-log-dirs",
        proves: "replicas move between log directories while they are written and read, by the Java tools",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/log_dirs.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(6),
        only_milena: false,
    },
    Suite {
        name: "tools",
        proves: "Milena's tools print what Kafka's print",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/parity.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(10),
        only_milena: true,
    },
    Suite {
        name: "java",
        proves: "the Java console and performance tools",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/scenario.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "sarama",
        proves: "sarama at each of several configured versions of Kafka",
        needs: &[Needs::Go],
        program: Program::Go("sarama"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "confluent-kafka",
        proves: "confluent-kafka for Python: groups, assignors, administration",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/python/confluent.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "exactly-once",
        proves: "kill -9 during consume-transform-produce by two workers: nothing is lost, nothing is there twice",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/durability/exactly_once.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(8),
        only_milena: false,
    },
    Suite {
        name: "streams",
        proves: "Kafka Streams with exactly_once_v2 over kills of the broker and a change of protocol: every update once and in order",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/streams/suite.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(8),
        only_milena: false,
    },
    Suite {
        name: "streams-groups",
        proves: "Kafka Streams with group.protocol=streams: internal topics, one instance to four to two, kills of both sides",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/streams/groups.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(8),
        only_milena: false,
    },
    Suite {
        name: "java-share-groups",
        proves: "share groups with Java's KafkaShareConsumer: acknowledgement, redelivery, locks, administration, kills of the broker",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/share_groups.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "java-consumer-groups",
        proves: "consumer groups of KIP-848 with Java's consumer: joins, crashes, static members, patterns, assignors, an upgrade",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/java/consumer_groups.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "librdkafka-share-groups",
        proves: "share groups with librdkafka's ShareConsumer: acknowledgement, redelivery, crashes, kills of the broker",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/python/share_groups.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "consumer-groups",
        proves: "consumer groups of KIP-848 with librdkafka and Java: joins, crashes, static members, patterns, changes of type",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/python/consumer_groups.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "transactions",
        proves: "transactions with confluent-kafka and Kafka's tools: commit, abort, fencing, offsets, isolation levels",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/python/transactions.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "differential",
        proves: "the answers to raw requests, in every version of every API, are those that Kafka gave",
        needs: &[],
        program: Program::Xtask(&["differential", "--recorded"]),
        host: Host::Own,
        limit: MINUTE.saturating_mul(4),
        only_milena: true,
    },
    Suite {
        name: "client-metrics",
        proves: "Java's and librdkafka's producers push their metrics, and a consumer reads them",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/python/client_metrics.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: true,
    },
    Suite {
        name: "settings",
        proves: "topic settings: at creation, changed at run time, by the defaults of all brokers",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::Python("tests/clients/python/settings.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(4),
        only_milena: false,
    },
    Suite {
        name: "franz-go",
        proves: "franz-go with every balancer, and transactions",
        needs: &[Needs::Go],
        program: Program::Go("franz"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "franz-go-groups",
        proves: "consumer groups of KIP-848 with franz-go: joins, crashes, static members, patterns, an upgrade",
        needs: &[Needs::Go],
        program: Program::Go("franzgroups"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "franz-go-share",
        proves: "share groups with franz-go: acknowledgement, redelivery, a crash, administration",
        needs: &[Needs::Go],
        program: Program::Go("franzshare"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "kafka-python",
        proves: "kafka-python",
        needs: &[Needs::Python],
        program: Program::Python("tests/clients/python/kafka_python.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "aiokafka",
        proves: "aiokafka",
        needs: &[Needs::Python],
        program: Program::Python("tests/clients/python/aio.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "kafkajs",
        proves: "kafkajs",
        needs: &[Needs::Node],
        program: Program::Node("tests/clients/node/kafkajs.js"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "kafka-go",
        proves: "segmentio/kafka-go",
        needs: &[Needs::Go],
        program: Program::Go("kafkago"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "kcat",
        proves: "kcat",
        needs: &[Needs::Kafka, Needs::Python, Needs::Kcat],
        program: Program::Python("tests/clients/kcat/suite.py"),
        host: Host::Given,
        limit: MINUTE.saturating_mul(3),
        only_milena: false,
    },
    Suite {
        name: "disk-full",
        proves: "a full disk: the broker stays up for reads, deletes and administration, and starts",
        needs: &[Needs::Kafka, Needs::Python],
        program: Program::PythonMounting("tests/durability/disk_full.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(3),
        only_milena: true,
    },
    Suite {
        name: "older-data",
        proves: "data directories of older versions are opened, with everything in them",
        needs: &[Needs::Python],
        program: Program::Python("tests/older_data/suite.py"),
        host: Host::Own,
        limit: MINUTE.saturating_mul(2),
        only_milena: true,
    },
];

/// What a suite showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) seconds: f64,
    /// What a person needs to see when it failed.
    pub(crate) details: String,
}

/// Runs a suite against a broker of its own, in a directory of its own, which is kept when it fails.
pub(crate) fn run(suite: &'static Suite, kind: Kind) -> Outcome {
    let begin = Instant::now();
    let directory = workshop()
        .join("runs")
        .join(format!("{}-{}", suite.name, std::process::id()));
    let mut outcome = match run_in(suite, kind, &directory) {
        Ok(outcome) => outcome,
        Err(error) => Outcome {
            name: suite.name,
            passed: 0,
            failed: 1,
            seconds: 0.0,
            details: format!("{error}\n"),
        },
    };
    outcome.seconds = begin.elapsed().as_secs_f64();
    if outcome.failed == 0 {
        if let Err(error) = std::fs::remove_dir_all(&directory).at(&directory) {
            outcome.details = format!("   (its directory stays: {error})\n");
        }
    } else {
        outcome
            .details
            .push_str(&format!("   kept: {}\n", directory.display()));
    }
    outcome
}

fn run_in(suite: &'static Suite, kind: Kind, directory: &Path) -> Result<Outcome> {
    std::fs::create_dir_all(directory).at(directory)?;
    let broker = match suite.host {
        Host::Given => {
            let at_once = AT_ONCE.map(|(name, value)| (name.to_string(), value.to_string()));
            Some(broker::start(kind, &directory.join("broker"), &at_once, false)?)
        }
        Host::Own => None,
    };
    let mut command = command(suite.program)?;
    command
        .current_dir(root())
        .env("AGAINST", kind.name())
        .env("KAFKA_BIN", kafka::bin())
        .env("MILENA", broker::milena_binary())
        .env("NODE_PATH", node_modules())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        .env("WORK", directory)
        .env("XTASK", own_program()?);
    if let Some(broker) = &broker {
        command.env("BOOTSTRAP", broker.address.to_string());
    }
    let log = directory.join("suite.log");
    let mut process = Running::start(&mut command, &log)?;
    let status = process.wait_within(suite.limit)?;
    let mut outcome = judge(suite, &log, status)?;
    if let Some(mut broker) = broker {
        if outcome.failed > 0 {
            outcome.details.push_str(&format!(
                "   the broker's log:\n{}",
                tail(&broker.process.log, 12)
            ));
        }
        broker.process.stop()?;
    }
    Ok(outcome)
}

fn command(program: Program) -> Result<Command> {
    let in_root = |path: &str| -> PathBuf { root().join(path) };
    Ok(match program {
        Program::Python(path) => {
            let mut command = child_command(python_program());
            command.arg(in_root(path));
            command
        }
        Program::PythonAlone(path) => {
            let mut command = child_command("unshare");
            command
                .args(["--net", "--"])
                .arg(python_program())
                .arg(in_root(path));
            command
        }
        Program::PythonMounting(path) => {
            let mut command = child_command("unshare");
            command
                .args(["--mount", "--"])
                .arg(python_program())
                .arg(in_root(path));
            command
        }
        Program::Node(path) => {
            let mut command = child_command("node");
            command.arg(in_root(path));
            command
        }
        Program::Go(name) => child_command(go_program(name)),
        Program::Xtask(arguments) => {
            let mut command = child_command(own_program()?);
            command.args(arguments);
            command
        }
    })
}

fn judge(suite: &'static Suite, log: &Path, status: Option<std::process::ExitStatus>) -> Result<Outcome> {
    let bytes = std::fs::read(log).at(log)?;
    let text = String::from_utf8_lossy(&bytes);
    let passed = text.lines().filter(|line| line.starts_with("ok ")).count();
    let mut failed = text.lines().filter(|line| line.starts_with("not ok ")).count();
    let mut details = String::new();
    match status {
        Some(status) if status.success() && failed == 0 => {
            if passed == 0 {
                return Err(Error::new(format!("the suite '{}' showed nothing", suite.name)));
            }
        }
        Some(status) => {
            failed = failed.max(1);
            details.push_str(&format!("   ended with {status}\n"));
        }
        None => {
            failed = failed.max(1);
            details.push_str(&format!("   not ended within {} s\n", suite.limit.as_secs()));
        }
    }
    if failed > 0 {
        details.push_str(&tail(log, 40));
    }
    Ok(Outcome {
        name: suite.name,
        passed,
        failed,
        seconds: 0.0,
        details,
    })
}
