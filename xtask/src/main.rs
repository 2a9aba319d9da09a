//! `cargo xtask`: the one door for developing Milena.
//!
//! It proves Milena with what people really use: Apache Kafka's own tools and the clients of many languages. Everything it
//! needs besides Rust it installs by itself under `.xtask/`, which git ignores.
//!
//! It leaves to the crates their own tests (`cargo test`), which it only calls.

mod bench;
mod broker;
mod differential;
mod error;
mod kafka;
mod process;
mod suites;
mod test;
mod toolchain;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  test [--only NAME]... [--list] [--against milena|kafka] [--skip-checks] [--jobs N]
        Everything: format, lints, cargo test, and every suite of real clients, each against a broker of its own.
        --only runs only the suites (or checks) of these names; --against kafka runs the suites against Apache Kafka.
  differential [--record | --recorded] [--only API,...]
        The same raw requests to Apache Kafka and to Milena, their answers compared field by field.
        --record keeps Apache Kafka's answers in tests/differential/recorded, --recorded compares Milena with those recorded before.
  kafka install
        Brings Apache Kafka and its tools from Maven Central into .xtask/kafka, with scripts in .xtask/kafka/bin.
  kafka start [--port N] [--override KEY=VALUE]... [--data DIR] [--ready-file PATH]
        Runs Apache Kafka (one node, KRaft) in the foreground; prints its address once it answers.
  kafka kafka-topics|kafka-configs|kafka-dump-log|... ARGUMENTS
        Runs one of Apache Kafka's own tools.
  bench [--runs N] [--only LOAD,...] [--broker milena|kafka] [--client native|java] [--quick] [--write]
        Apache Kafka and Milena under the same loads, one at a time; a whole run writes bench/ and the README's figures.
        --quick runs a fiftieth of each load, --write writes what is not whole; an unknown LOAD shows the known ones.
  bench soak [--minutes N] [--client native|java]
        Milena under a mixed load with retention and compaction; writes bench/soak.csv and bench/soak.svg.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "test" => test::run(rest),
        "kafka" => kafka::run(rest),
        "differential" => differential::run(rest),
        "bench" => bench::run(rest).map(|()| ExitCode::SUCCESS),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => Err(error::Error::new(format!(
            "there is no command '{other}'.\n\n{USAGE}"
        ))),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error}");
        ExitCode::FAILURE
    })
}
