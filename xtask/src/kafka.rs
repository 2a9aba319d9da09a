//! Apache Kafka, the reference: brings its artifacts from Maven Central, starts its broker and runs its tools.
//!
//! Maven Central has every jar that Kafka's own download has, so a generated `pom.xml` stands in for the download. The
//! scripts in `.xtask/kafka/bin` do what Kafka's `bin/*.sh` do: choose a class and a log configuration. An archive of the
//! tools' classes makes the JVM start in a third of the time.

use crate::error::{AtPath, Error, Result};
use crate::process::{Running, answers, child_command, free_port, must_succeed, run_to_end, workshop};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// The version whose behaviour Milena has.
pub(crate) const VERSION: &str = "4.3.1";
/// The binding between slf4j and log4j that Kafka's download ships and its artifacts do not name.
const LOG4J_VERSION: &str = "2.25.4";
const START_TIMEOUT: Duration = Duration::from_secs(90);

const ARTIFACTS: &[(&str, &str, &str)] = &[
    ("org.apache.kafka", "kafka_2.13", VERSION),
    ("org.apache.kafka", "kafka-tools", VERSION),
    ("org.apache.kafka", "kafka-streams", VERSION),
    ("org.apache.kafka", "kafka-shell", VERSION),
    ("org.apache.kafka", "connect-runtime", VERSION),
    ("org.apache.kafka", "connect-file", VERSION),
    ("org.apache.kafka", "connect-mirror", VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
    ("org.apache.logging.log4j", "log4j-1.2-api", LOG4J_VERSION),
];

/// The commands of Kafka's `bin` directory and the classes that they run.
const TOOLS: &[(&str, &str)] = &[
    (
        "connect-distributed",
        "org.apache.kafka.connect.cli.ConnectDistributed",
    ),
    (
        "connect-mirror-maker",
        "org.apache.kafka.connect.mirror.MirrorMaker",
    ),
    ("connect-plugin-path", "org.apache.kafka.tools.ConnectPluginPath"),
    (
        "connect-standalone",
        "org.apache.kafka.connect.cli.ConnectStandalone",
    ),
    ("kafka-acls", "org.apache.kafka.tools.AclCommand"),
    (
        "kafka-broker-api-versions",
        "org.apache.kafka.tools.BrokerApiVersionsCommand",
    ),
    (
        "kafka-client-metrics",
        "org.apache.kafka.tools.ClientMetricsCommand",
    ),
    ("kafka-cluster", "org.apache.kafka.tools.ClusterTool"),
    ("kafka-configs", "kafka.admin.ConfigCommand"),
    (
        "kafka-console-consumer",
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
    ),
    ("kafka-console-producer", "org.apache.kafka.tools.ConsoleProducer"),
    (
        "kafka-console-share-consumer",
        "org.apache.kafka.tools.consumer.ConsoleShareConsumer",
    ),
    (
        "kafka-consumer-groups",
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    ),
    (
        "kafka-consumer-perf-test",
        "org.apache.kafka.tools.ConsumerPerformance",
    ),
    (
        "kafka-delegation-tokens",
        "org.apache.kafka.tools.DelegationTokenCommand",
    ),
    (
        "kafka-delete-records",
        "org.apache.kafka.tools.DeleteRecordsCommand",
    ),
    ("kafka-dump-log", "org.apache.kafka.tools.DumpLogSegments"),
    ("kafka-e2e-latency", "org.apache.kafka.tools.EndToEndLatency"),
    ("kafka-features", "org.apache.kafka.tools.FeatureCommand"),
    ("kafka-get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-groups", "org.apache.kafka.tools.GroupsCommand"),
    ("kafka-jmx", "org.apache.kafka.tools.JmxTool"),
    (
        "kafka-leader-election",
        "org.apache.kafka.tools.LeaderElectionCommand",
    ),
    ("kafka-log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
    (
        "kafka-metadata-quorum",
        "org.apache.kafka.tools.MetadataQuorumCommand",
    ),
    ("kafka-metadata-shell", "org.apache.kafka.shell.MetadataShell"),
    (
        "kafka-producer-perf-test",
        "org.apache.kafka.tools.ProducerPerformance",
    ),
    (
        "kafka-reassign-partitions",
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    ),
    (
        "kafka-replica-verification",
        "org.apache.kafka.tools.ReplicaVerificationTool",
    ),
    ("kafka-server-start", "kafka.Kafka"),
    (
        "kafka-share-consumer-perf-test",
        "org.apache.kafka.tools.ShareConsumerPerformance",
    ),
    (
        "kafka-share-groups",
        "org.apache.kafka.tools.consumer.group.ShareGroupCommand",
    ),
    ("kafka-storage", "kafka.tools.StorageTool"),
    (
        "kafka-streams-application-reset",
        "org.apache.kafka.tools.StreamsResetter",
    ),
    (
        "kafka-streams-groups",
        "org.apache.kafka.tools.streams.StreamsGroupCommand",
    ),
    ("kafka-topics", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-transactions", "org.apache.kafka.tools.TransactionsCommand"),
    (
        "kafka-verifiable-consumer",
        "org.apache.kafka.tools.VerifiableConsumer",
    ),
    (
        "kafka-verifiable-producer",
        "org.apache.kafka.tools.VerifiableProducer",
    ),
    (
        "kafka-verifiable-share-consumer",
        "org.apache.kafka.tools.VerifiableShareConsumer",
    ),
];

/// What the short life of a tool wants: no time spent on making long-running code fast.
const TOOL_FLAGS: &[&str] = &[
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Xmx512M",
];

const TOOLS_LOG_CONFIGURATION: &str = "\
status = error
appender.stderr.type = Console
appender.stderr.name = STDERR
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = STDERR
";

const BROKER_LOG_CONFIGURATION: &str = "\
status = error
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = STDOUT
";

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let Some((command, rest)) = arguments.split_first() else {
        return Err(Error::new(
            "kafka install, kafka start, or kafka TOOL, for example: kafka kafka-topics --list",
        ));
    };
    match command.as_str() {
        "install" => install().map(|()| ExitCode::SUCCESS),
        "start" => start_in_foreground(rest),
        tool => {
            install()?;
            let script = script(tool)?;
            // Replaces xtask: the tool has its terminal, its signals and its exit code.
            Err(Error::new(format!(
                "{tool}: {}",
                Command::new(script).args(rest).exec()
            )))
        }
    }
}

fn home() -> PathBuf {
    workshop().join("kafka")
}

/// The directory of the tools' scripts, for the suites.
pub(crate) fn bin() -> PathBuf {
    home().join("bin")
}

fn script(tool: &str) -> Result<PathBuf> {
    let name = tool.strip_suffix(".sh").unwrap_or(tool);
    if TOOLS.iter().any(|(known, _)| *known == name) {
        return Ok(bin().join(name));
    }
    let known: Vec<&str> = TOOLS.iter().map(|(name, _)| *name).collect();
    Err(Error::new(format!(
        "there is no tool '{tool}'. There are: {}",
        known.join(" ")
    )))
}

/// Installs once; a change of version or of the artifacts above installs anew.
pub(crate) fn install() -> Result<()> {
    let home = home();
    let pom = pom();
    let stamp = home.join("installed");
    let wanted = format!("{pom}\n{}", scripts_fingerprint());
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    for program in ["java", "mvn"] {
        if !crate::process::on_path(program) {
            return Err(Error::new(format!(
                "Apache Kafka needs '{program}', which is not on the path"
            )));
        }
    }
    eprintln!(
        "Bringing Apache Kafka {VERSION} from Maven Central to {} …",
        home.display()
    );
    std::fs::create_dir_all(&home).at(&home)?;
    write(&home.join("pom.xml"), &pom)?;
    let libs = home.join("libs");
    let log = home.join("install.log");
    let mut maven = child_command("mvn");
    maven.args([
        "-B",
        "-q",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        "-DoutputDirectory=libs",
    ]);
    must_succeed(maven.current_dir(&home), Some(&log))?;

    write(&home.join("classpath"), &classpath(&libs)?)?;
    write(&home.join("tools-log4j2.properties"), TOOLS_LOG_CONFIGURATION)?;
    write(&home.join("broker-log4j2.properties"), BROKER_LOG_CONFIGURATION)?;
    write_scripts()?;
    archive_classes(&log)?;
    write(&stamp, &wanted)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).at(path)
}

fn pom() -> String {
    let dependencies: String = ARTIFACTS
        .iter()
        .map(|(group, artifact, version)| {
            format!(
                "    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>\n"
            )
        })
        .collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n  \
         <groupId>milena</groupId><artifactId>reference-kafka</artifactId><version>1</version><packaging>pom</packaging>\n  \
         <dependencies>\n{dependencies}  </dependencies>\n</project>\n"
    )
}

fn classpath(libs: &Path) -> Result<String> {
    let mut jars = Vec::new();
    for entry in std::fs::read_dir(libs).at(libs)? {
        let path = entry.at(libs)?.path();
        if path.extension().is_some_and(|extension| extension == "jar") {
            jars.push(path.display().to_string());
        }
    }
    // The class archive is good only for the very same class path, so its order must not depend on the directory's.
    jars.sort();
    Ok(jars.join(":"))
}

fn script_text(class: &str) -> String {
    let home = home();
    let home = home.display();
    let flags = TOOL_FLAGS.join(" ");
    format!(
        "#!/bin/sh\nexec java {flags} -XX:SharedArchiveFile={home}/tools.jsa \
         -Dlog4j2.configurationFile={home}/tools-log4j2.properties $KAFKA_OPTS -cp \"$(cat {home}/classpath)\" {class} \"$@\"\n"
    )
}

fn scripts_fingerprint() -> String {
    TOOLS
        .iter()
        .map(|(name, class)| format!("{name}\n{}", script_text(class)))
        .collect()
}

fn write_scripts() -> Result<()> {
    let bin = bin();
    std::fs::create_dir_all(&bin).at(&bin)?;
    for (name, class) in TOOLS {
        let path = bin.join(name);
        write(&path, &script_text(class))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).at(&path)?;
    }
    Ok(())
}

/// Makes the class data archive from what the common tools load. Only speed depends on it, so a JVM that cannot make
/// one is no failure.
fn archive_classes(log: &Path) -> Result<()> {
    let home = home();
    let classpath_file = home.join("classpath");
    let classpath = std::fs::read_to_string(&classpath_file).at(&classpath_file)?;
    let port = free_port()?;
    let nobody = format!("127.0.0.1:{port}");
    let impatient = home.join("impatient.properties");
    write(&impatient, "default.api.timeout.ms=300\nrequest.timeout.ms=200\n")?;
    let impatient = impatient.display().to_string();
    // Nobody answers there: each tool loads its classes, gives up and ends.
    let rehearsals: [(&str, Vec<&str>); 4] = [
        (
            "kafka-topics",
            vec![
                "--bootstrap-server",
                &nobody,
                "--command-config",
                &impatient,
                "--list",
            ],
        ),
        (
            "kafka-consumer-groups",
            vec![
                "--bootstrap-server",
                &nobody,
                "--command-config",
                &impatient,
                "--timeout",
                "300",
                "--list",
            ],
        ),
        (
            "kafka-configs",
            vec![
                "--bootstrap-server",
                &nobody,
                "--command-config",
                &impatient,
                "--describe",
                "--entity-type",
                "topics",
            ],
        ),
        (
            "kafka-console-consumer",
            vec![
                "--bootstrap-server",
                &nobody,
                "--topic",
                "none",
                "--timeout-ms",
                "500",
            ],
        ),
    ];
    let mut classes = std::collections::BTreeSet::new();
    let list = home.join("classes.list");
    for (tool, arguments) in rehearsals {
        let class = TOOLS
            .iter()
            .find(|(name, _)| *name == tool)
            .map(|(_, class)| *class)
            .unwrap_or_default();
        let mut java = child_command("java");
        java.args(TOOL_FLAGS)
            .arg(format!("-XX:DumpLoadedClassList={}", list.display()))
            .args(["-cp", &classpath]);
        run_to_end(java.arg(class).args(arguments), Some(log))?;
        let text = std::fs::read_to_string(&list).unwrap_or_default();
        classes.extend(text.lines().map(str::to_string));
    }
    write(&list, &classes.into_iter().collect::<Vec<_>>().join("\n"))?;
    let mut java = child_command("java");
    java.args(TOOL_FLAGS)
        .arg("-Xshare:dump")
        .arg(format!("-XX:SharedClassListFile={}", list.display()))
        .arg(format!(
            "-XX:SharedArchiveFile={}",
            home.join("tools.jsa").display()
        ))
        .args(["-cp", &classpath]);
    run_to_end(&mut java, Some(log)).map(|_| ())
}

/// How a reference broker is to be started.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) port: Option<u16>,
    pub(crate) overrides: Vec<(String, String)>,
    pub(crate) data: PathBuf,
    /// With the JVM flags of Kafka's own start script, for measurements; otherwise with those that start fastest.
    pub(crate) as_shipped: bool,
}

#[derive(Debug)]
pub(crate) struct ReferenceBroker {
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
}

/// What is ready for a reference broker to be started.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) address: SocketAddr,
    pub(crate) properties: PathBuf,
    pub(crate) log: PathBuf,
}

/// Writes the configuration and formats the storage.
pub(crate) fn prepare(options: &Options) -> Result<Prepared> {
    install()?;
    let port = match options.port {
        Some(port) => port,
        None => free_port()?,
    };
    let directory = &options.data;
    std::fs::create_dir_all(directory).at(directory)?;
    let properties = directory.join("server.properties");
    let log = directory.join("broker.log");
    write(&properties, &server_properties(options, port, free_port()?))?;
    if !directory.join("data/meta.properties").exists() {
        let mut format = child_command(bin().join("kafka-storage"));
        format.args([
            "format",
            "--ignore-formatted",
            "--cluster-id",
            "4L6g3nShT-eMCtK--X86sw",
            "--config",
        ]);
        must_succeed(format.arg(&properties), Some(&log))?;
    }
    Ok(Prepared {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        properties,
        log,
    })
}

/// Formats the storage, starts the broker and waits until it answers.
pub(crate) fn start(options: &Options) -> Result<ReferenceBroker> {
    let prepared = prepare(options)?;
    let address = prepared.address;
    let mut process = Running::start(&mut broker_command(options, &prepared.properties)?, &prepared.log)?;
    process.wait_until("Kafka answers", START_TIMEOUT, || answers(address).then_some(()))?;
    Ok(ReferenceBroker { process, address })
}

pub(crate) fn broker_command(options: &Options, properties: &Path) -> Result<Command> {
    let home = home();
    let classpath_file = home.join("classpath");
    let classpath = std::fs::read_to_string(&classpath_file).at(&classpath_file)?;
    let mut java = child_command("java");
    if options.as_shipped {
        java.args([
            "-Xmx1G",
            "-Xms1G",
            "-server",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
        ]);
        java.args([
            "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:+ExplicitGCInvokesConcurrent",
        ]);
    } else {
        java.args([
            "-Xmx1G",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
        ]);
        java.arg(format!(
            "-XX:SharedArchiveFile={}",
            home.join("tools.jsa").display()
        ));
    }
    java.arg(format!(
        "-Dlog4j2.configurationFile={}",
        home.join("broker-log4j2.properties").display()
    ));
    java.args(["-cp", &classpath, "kafka.Kafka"]).arg(properties);
    Ok(java)
}

fn server_properties(options: &Options, port: u16, controller: u16) -> String {
    let mut lines: Vec<(String, String)> = [
        ("node.id", "1".to_string()),
        ("process.roles", "broker,controller".to_string()),
        (
            "listeners",
            format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
        ),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
        ("controller.listener.names", "CONTROLLER".to_string()),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_string(),
        ),
        ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
        ("log.dirs", options.data.join("data").display().to_string()),
        ("offsets.topic.replication.factor", "1".to_string()),
        ("transaction.state.log.replication.factor", "1".to_string()),
        ("transaction.state.log.min.isr", "1".to_string()),
        (
            "share.coordinator.state.topic.replication.factor",
            "1".to_string(),
        ),
        ("share.coordinator.state.topic.min.isr", "1".to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect();
    for (key, value) in &options.overrides {
        lines.retain(|(known, _)| known != key);
        lines.push((key.clone(), value.clone()));
    }
    lines
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect()
}

fn start_in_foreground(arguments: &[String]) -> Result<ExitCode> {
    let mut options = Options::default();
    let mut ready_file = None;
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| Error::new(format!("{flag} needs a value")))?;
        match flag.as_str() {
            "--port" => {
                let port = value
                    .parse()
                    .map_err(|_| Error::new(format!("--port {value} is no port")))?;
                options.port = Some(port);
            }
            "--override" => {
                let (key, value) = value
                    .split_once('=')
                    .ok_or_else(|| Error::new("--override takes KEY=VALUE"))?;
                options.overrides.push((key.to_string(), value.to_string()));
            }
            "--data" => options.data = std::path::absolute(value)?,
            "--ready-file" => ready_file = Some(PathBuf::from(value)),
            other => return Err(Error::new(format!("kafka start has no option {other}"))),
        }
    }
    let temporary = options.data.as_os_str().is_empty();
    if temporary {
        options.data = std::env::temp_dir().join(format!("kafka-reference-{}", std::process::id()));
    }
    let mut broker = start(&options)?;
    println!(
        "Apache Kafka {VERSION} (process {}) answers at {}",
        broker.process.id(),
        broker.address
    );
    println!("Its log: {}", broker.process.log.display());
    if let Some(path) = ready_file {
        write(&path, &broker.address.to_string())?;
    }
    let status = broker.process.wait()?;
    if temporary {
        std::fs::remove_dir_all(&options.data).at(&options.data)?;
    }
    println!("Apache Kafka ended with {status}");
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One of Apache Kafka's tools, ready to be given its arguments.
pub(crate) fn tool(name: &str) -> Result<Command> {
    let mut command = child_command(script(name)?);
    command.stdin(Stdio::null());
    Ok(command)
}
