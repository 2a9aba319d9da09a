//! The `kafka-*` commands: Kafka's own flags, output and exit codes, in the same binary as the
//! broker. They talk to any Kafka-compatible broker.
//!
//! One file per command. What a command prints to standard output is what Kafka's prints; messages
//! of errors go where Kafka's go.

// Its macros are for all that follows.
#[macro_use]
mod output;

mod admin;
mod broker_api_versions;
mod client_metrics;
mod config_arguments;
mod config_quotas;
mod configs;
mod console;
mod consumer_groups;
mod delete_records;
mod get_offsets;
mod group_admin;
mod group_resets;
mod groups;
mod install;
mod log_dirs;
mod options;
mod perf;
mod share_groups;
mod streams_groups;
mod topics;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use milena_client::ClientError;

pub use install::{InstallError, install_tools};

/// How a command ends other than well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// The flags are wrong: message and usage to standard error, exit 1.
    #[error("{0}")]
    Usage(String),
    /// Usage was asked for: exit 0.
    #[error("{0}")]
    Help(String),
    #[error("{0}")]
    Failed(String),
    /// What was asked for cannot be: the sentence alone, exit 1.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl From<std::io::Error> for ToolError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

pub(crate) type ToolResult<T = ()> = Result<T, ToolError>;

type Main = fn(&[String]) -> ExitCode;

const TOOLS: &[(&str, Main)] = &[
    ("kafka-broker-api-versions", broker_api_versions::main),
    ("kafka-client-metrics", client_metrics::main),
    ("kafka-configs", configs::main),
    ("kafka-console-consumer", console::consumer::main),
    ("kafka-console-producer", console::producer::main),
    ("kafka-console-share-consumer", console::share_consumer::main),
    ("kafka-consumer-groups", consumer_groups::main),
    ("kafka-consumer-perf-test", perf::consumer::main),
    ("kafka-delete-records", delete_records::main),
    ("kafka-e2e-latency", perf::latency::main),
    ("kafka-get-offsets", get_offsets::main),
    ("kafka-groups", groups::main),
    ("kafka-log-dirs", log_dirs::main),
    ("kafka-producer-perf-test", perf::producer::main),
    ("kafka-share-groups", share_groups::main),
    ("kafka-streams-groups", streams_groups::main),
    ("kafka-topics", topics::main),
];

/// Names of all commands.
pub fn names() -> impl Iterator<Item = &'static str> {
    TOOLS.iter().map(|(name, _)| *name)
}

/// The command that a program name stands for: its last path component, with or without `.sh`.
#[must_use]
pub fn tool_named(program: &str) -> Option<&'static str> {
    let name = Path::new(program).file_name()?.to_str()?;
    let name = name.strip_suffix(".sh").unwrap_or(name);
    names().find(|tool| *tool == name)
}

/// Runs a command with its arguments (without the command's name).
#[must_use]
pub fn run(name: &str, arguments: Vec<OsString>) -> ExitCode {
    let Some((_, main)) = TOOLS.iter().find(|(tool, _)| *tool == name) else {
        eprintln!(
            "There is no command {name}. There are: {}",
            names().collect::<Vec<_>>().join(", ")
        );
        return ExitCode::FAILURE;
    };
    let arguments: Result<Vec<String>, OsString> = arguments.into_iter().map(OsString::into_string).collect();
    match arguments {
        Ok(arguments) => {
            let code = main(&arguments);
            if output::is_whole() {
                code
            } else {
                ExitCode::FAILURE
            }
        }
        Err(argument) => {
            eprintln!("The argument {} is not UTF-8.", argument.display());
            ExitCode::FAILURE
        }
    }
}

/// Runs a command's asynchronous part on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = ToolResult<T>>) -> ToolResult<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(future)
}

/// The options of a command, or what it ends with: its help, its version, or what is wrong with them.
pub(crate) fn options_or_exit(
    parsed: Result<options::Options, ToolError>,
    spec: &options::Spec,
) -> Result<options::Options, ExitCode> {
    match parsed {
        Ok(options) if options.has("version") => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            Err(ExitCode::SUCCESS)
        }
        Ok(options) => Ok(options),
        Err(ToolError::Help(about)) => {
            usage(&about, spec);
            Err(ExitCode::SUCCESS)
        }
        Err(ToolError::Usage(message)) => Err(usage(&message, spec)),
        Err(error) => {
            eprintln!("{error}");
            Err(ExitCode::FAILURE)
        }
    }
}

/// Message and usage of wrong flags, as Kafka's commands print them.
pub(crate) fn usage(message: &str, spec: &options::Spec) -> ExitCode {
    eprintln!("{message}");
    eprintln!("{}", spec.help());
    ExitCode::FAILURE
}
