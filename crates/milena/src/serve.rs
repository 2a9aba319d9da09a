//! `milena serve`: reads the configuration, opens the engines, serves, and stops in order.
//!
//! What a person needs to know goes to stdout, once, on one screen; what happens goes to stderr as
//! log lines (`MILENA_LOG` filters them at first: `LogLevels::parse`).

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use milena_broker::config::{self, BrokerConfig, Sources};
use milena_broker::{Broker, Clock, Engines, LogLevel, LogLevels, Loggers, Server, SystemClock};
use milena_log_disk::{DiskLogStore, DiskOptions};
use milena_state_sqlite::SqliteStore;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// The fact store's file, in the first log directory.
const FACTS_FILE: &str = "milena.sqlite";
/// One for every two cores: a worker that hands work to another pays for two wake-ups, and the disk's
/// threads and the clients want the other cores. More workers than this gain nothing for a broker
/// whose work is short.
const MAX_WORKERS: usize = 16;
/// Says which log lines are written.
const LOG_VARIABLE: &str = "MILENA_LOG";
/// What a process ends with that is interrupted while it stops.
const INTERRUPTED: i32 = 130;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// A server.properties file with Kafka's names.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, over the file and the environment (KAFKA_*). May be repeated.
    #[arg(long = "override", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
    /// Written when the broker serves: the address for --bootstrap-server.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let loggers = start_log();
    raise_descriptor_limit();
    let workers = std::thread::available_parallelism()
        .map_or(1, |cores| cores.get() / 2)
        .clamp(1, MAX_WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(serve(args, loggers)),
        Err(error) => Err(format!("cannot start the runtime: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            error!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to stderr, those that `MILENA_LOG` asks for until a client asks for others.
fn start_log() -> Loggers {
    let text = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let (levels, unknown) = LogLevels::parse(&text);
    let (filter, handle) = reload::Layer::new(filter_of(&levels));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
    for part in unknown {
        warn!("{LOG_VARIABLE}: {part} is neither a level nor a logger with a level, and is ignored");
    }
    Loggers::new(levels, move |levels| {
        handle
            .reload(filter_of(levels))
            .map_err(|error| error.to_string())
    })
}

fn filter_of(levels: &LogLevels) -> Targets {
    let targets = levels.targets().map(|(target, level)| (target, filter(level)));
    Targets::new()
        .with_default(filter(levels.root()))
        .with_targets(targets)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off | LogLevel::Fatal => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Every connection and every open segment takes a descriptor; the soft limit is often 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        warn!(
            "cannot raise the limit of open files from {:?}: {error}",
            limit.current
        );
    }
}

async fn serve(args: ServeArgs, loggers: Loggers) -> Result<(), String> {
    // Before anything else, so that a signal during the start is not lost.
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let sources = Sources {
        file: args.config,
        environment: environment(),
        overrides: args.overrides,
    };
    let loaded = config::load(&sources).map_err(|error| error.to_string())?;
    for notice in &loaded.notices {
        warn!("{notice}");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let engines = open_engines(&loaded.config, clock.now_ms())?;
    let broker = Broker::start_in(loaded.cluster_id, loaded.config, engines, clock)
        .await
        .map_err(|error| error.to_string())?;
    broker.set_loggers(loggers);
    let server = Server::start(broker.clone())
        .await
        .map_err(|error| error.to_string())?;
    // Nobody may be listening; the broker serves all the same.
    let _ = writeln!(std::io::stdout(), "{}", screen(&broker, &server));
    if let Some(path) = &args.ready_file {
        announce(path, &bootstrap(&server))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    signals.next().await;
    info!("stopping: connections answer what they have taken. A second signal ends at once");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    server
        .shutdown()
        .await
        .map_err(|error| format!("the broker did not stop cleanly: {error}"))?;
    info!("stopped");
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Variables that are not UTF-8 cannot be settings.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn open_engines(config: &BrokerConfig, now_ms: i64) -> Result<Engines, String> {
    let first = config.log_dirs.first().ok_or("log.dirs names no directory")?;
    for dir in &config.log_dirs {
        std::fs::create_dir_all(dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    }
    let options = DiskOptions {
        checkpoint_interval_ms: i64::from(config.log_flush_offset_checkpoint_interval_ms),
        retention_check_interval_ms: config.log_retention_check_interval_ms,
        cleaner: config.cleaner.clone(),
        moves: config.moves.clone(),
        ..DiskOptions::at(now_ms)
    };
    let logs = DiskLogStore::open(config.log_dirs.clone(), options).map_err(|error| error.to_string())?;
    for commits in logs.kernel_commits() {
        tokio::spawn(async move {
            if let Err(error) = commits.run().await {
                warn!(%error, "a thread makes commits durable, not the kernel by itself");
            }
        });
    }
    let facts = SqliteStore::open(&first.join(FACTS_FILE)).map_err(|error| error.to_string())?;
    Ok(Engines {
        logs: Arc::new(logs),
        facts: Arc::new(facts),
    })
}

/// What clients pass as `--bootstrap-server`.
fn bootstrap(server: &Server) -> String {
    server.listeners().first().map_or_else(String::new, |listener| {
        let endpoint = &listener.advertised;
        match endpoint.host.contains(':') {
            true => format!("[{}]:{}", endpoint.host, endpoint.port),
            false => format!("{}:{}", endpoint.host, endpoint.port),
        }
    })
}

fn screen(broker: &Broker, server: &Server) -> String {
    let config = broker.config();
    let bootstrap = bootstrap(server);
    let mut text = format!(
        "Milena {} speaks the protocol of Kafka 4.3.1\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let _ = writeln!(text, "  Cluster id  {}", broker.cluster_id());
    let _ = writeln!(text, "  Node id     {}", config.node_id);
    for listener in server.listeners() {
        let endpoint = &listener.advertised;
        let _ = writeln!(
            text,
            "  Listener    {} on {}, clients are told {}:{}",
            listener.name, listener.address, endpoint.host, endpoint.port
        );
    }
    for dir in &config.log_dirs {
        let _ = writeln!(
            text,
            "  Data        {}",
            std::path::absolute(dir).unwrap_or_else(|_| dir.clone()).display()
        );
    }
    let _ = write!(
        text,
        "\nTry it:\n  \
         milena kafka-topics --create --topic ml-events --partitions 6 --replication-factor 1 \
         --bootstrap-server {bootstrap}\n  \
         pip install confluent-kafka\n  \
         python3 -c \"from confluent_kafka import Producer; p = Producer({{'bootstrap.servers': '{bootstrap}'}}); \
         p.produce('ml-events', 'hello'); p.flush()\"\n  \
         milena kafka-console-consumer --topic ml-events --from-beginning --bootstrap-server {bootstrap}\n\n\
         Ctrl-C stops the broker.",
    );
    text
}

/// Whole or not at all: whoever waits for the file never reads half an address.
fn announce(path: &Path, address: &str) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, format!("{address}\n"))?;
    std::fs::rename(&partial, path)
}
