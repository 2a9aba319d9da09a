//! The subcommands, and nothing else.

mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "milena", version, about = "Kafka's broker, in Rust")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve(serve::ServeArgs),
    /// Link the kafka-* commands into a directory, with and without .sh.
    InstallTools {
        /// A directory on your PATH.
        dir: PathBuf,
    },
    /// Any of the kafka-* commands, with Kafka's own flags.
    #[command(external_subcommand)]
    Tool(Vec<OsString>),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    if let Some(tool) = program.to_str().and_then(milena_tools::tool_named) {
        return milena_tools::run(tool, arguments.collect());
    }
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::InstallTools { dir } => install_tools(&dir),
        Command::Tool(words) => {
            let mut words = words.into_iter();
            let name = words.next().unwrap_or_default();
            let name = name.to_string_lossy();
            milena_tools::run(milena_tools::tool_named(&name).unwrap_or(&name), words.collect())
        }
    }
}

fn install_tools(dir: &std::path::Path) -> ExitCode {
    match milena_tools::install_tools(dir) {
        Ok(links) => {
            println!(
                "{} links in {}. Try: kafka-topics --list --bootstrap-server localhost:9092",
                links.len(),
                dir.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
