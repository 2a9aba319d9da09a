//! The broker that a suite talks to: Milena as it was built here, or Apache Kafka as the reference.

use crate::error::{AtPath, Error, Result};
use crate::kafka;
use crate::process::{Running, child_command, root};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_TIMEOUT: Duration = Duration::from_secs(30);

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

fn start_milena(directory: &Path, overrides: &[(String, String)]) -> Result<Broker> {
    let ready = directory.join("ready");
    if ready.exists() {
        std::fs::remove_file(&ready).at(&ready)?;
    }
    let mut command = child_command(milena_binary());
    command.arg("serve").arg("--ready-file").arg(&ready);
    command.args(["--override", "listeners=PLAINTEXT://127.0.0.1:0"]);
    command
        .arg("--override")
        .arg(format!("log.dirs={}", directory.join("data").display()));
    for (key, value) in overrides {
        command.arg("--override").arg(format!("{key}={value}"));
    }
    let mut process = Running::start(&mut command, &directory.join("broker.log"))?;
    let address = process.wait_until("the broker is ready", START_TIMEOUT, || {
        std::fs::read_to_string(&ready).ok()?.trim().parse().ok()
    })?;
    Ok(Broker { process, address })
}
