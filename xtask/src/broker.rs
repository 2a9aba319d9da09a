//! The broker that a suite talks to: Milena as it was built here, or Apache Kafka as the reference.

use crate::error::{AtPath, Error, Result};
use crate::kafka;
use crate::process::{Running, answers, child_command, free_port, root, tail};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a start that is timed may take.
const TIMED_START_TIMEOUT: Duration = Duration::from_secs(300);

/// Which broker is to be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Milena,
    Kafka,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milena => "milena",
            Self::Kafka => "kafka",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        match name {
            "milena" => Ok(Self::Milena),
            "kafka" => Ok(Self::Kafka),
            other => Err(Error::new(format!("'{other}' is neither milena nor kafka"))),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
}

/// Names another binary to prove than the one that is built here: a packaged one, or a debug build.
const BINARY_VARIABLE: &str = "MILENA_BINARY";

pub(crate) fn binary_is_given() -> bool {
    std::env::var_os(BINARY_VARIABLE).is_some()
}

/// The given binary, or where cargo puts a release build, also when `CARGO_TARGET_DIR` moves it.
pub(crate) fn milena_binary() -> PathBuf {
    if let Some(given) = std::env::var_os(BINARY_VARIABLE) {
        return PathBuf::from(given);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("release").join("milena")
}

/// Starts a broker on a free port with its data, log and ready file in `directory`.
pub(crate) fn start(
    kind: Kind,
    directory: &Path,
    overrides: &[(String, String)],
    as_shipped: bool,
) -> Result<Broker> {
    std::fs::create_dir_all(directory).at(directory)?;
    match kind {
        Kind::Milena => start_milena(directory, overrides),
        Kind::Kafka => {
            let options = kafka::Options {
                port: None,
                overrides: overrides.to_vec(),
                data: directory.to_path_buf(),
                as_shipped,
            };
            let reference = kafka::start(&options)?;
            Ok(Broker {
                process: reference.process,
                address: reference.address,
            })
        }
    }
}

/// Milena's command with its data in `directory`, before it is told where to listen.
fn milena_command(directory: &Path, overrides: &[(String, String)]) -> Command {
    let mut command = child_command(milena_binary());
    command
        .arg("serve")
        .arg("--override")
        .arg(format!("log.dirs={}", directory.join("data").display()));
    for (key, value) in overrides {
        command.arg("--override").arg(format!("{key}={value}"));
    }
    command
}

fn start_milena(directory: &Path, overrides: &[(String, String)]) -> Result<Broker> {
    let ready = directory.join("ready");
    if ready.exists() {
        std::fs::remove_file(&ready).at(&ready)?;
    }
    let mut command = milena_command(directory, overrides);
    command.arg("--ready-file").arg(&ready);
    command.args(["--override", "listeners=PLAINTEXT://127.0.0.1:0"]);
    let mut process = Running::start(&mut command, &directory.join("broker.log"))?;
    let address = process.wait_until("the broker is ready", START_TIMEOUT, || {
        std::fs::read_to_string(&ready).ok()?.trim().parse().ok()
    })?;
    Ok(Broker { process, address })
}

/// Starts a broker as [`start`] does, and gives the time from the start of its process to its first answer. Formatting
/// Apache Kafka's storage is not counted: it is done once.
pub(crate) fn start_timed(
    kind: Kind,
    directory: &Path,
    overrides: &[(String, String)],
) -> Result<(Duration, Broker)> {
    std::fs::create_dir_all(directory).at(directory)?;
    let (mut command, address) = match kind {
        Kind::Milena => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            let mut command = milena_command(directory, overrides);
            command
                .arg("--override")
                .arg(format!("listeners=PLAINTEXT://{address}"));
            (command, address)
        }
        Kind::Kafka => {
            let options = kafka::Options {
                port: None,
                overrides: overrides.to_vec(),
                data: directory.to_path_buf(),
                as_shipped: true,
            };
            let prepared = kafka::prepare(&options)?;
            let command = kafka::broker_command(&options, &prepared.properties)?;
            (command, prepared.address)
        }
    };
    let begin = Instant::now();
    let mut process = Running::start(&mut command, &directory.join("broker.log"))?;
    // Asks again at once after each refusal, so that the time is exact to a fraction of a millisecond.
    while !answers(address) {
        if process.has_ended()? || begin.elapsed() > TIMED_START_TIMEOUT {
            return Err(Error::new(format!(
                "the broker does not answer\n{}",
                tail(&process.log, 30)
            )));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((begin.elapsed(), Broker { process, address }))
}
