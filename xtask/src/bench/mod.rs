//! `cargo xtask bench`: Apache Kafka and Milena under the same loads, in the same run, one at a time.
//!
//! What is where: [`options`] what was asked for, [`loads`] the loads and what they must show, [`session`] one broker and
//! the clients that load it, [`scale`] starts and many partitions, [`curves`] what a record costs as the log grows,
//! [`sampling`] the kernel's accounting, [`table`] and [`report`] what people read, [`chart`] the pictures, [`soak`] the long mixed load, [`wire`] round trips and
//! [`coordinators`] transactions and offset commits without a client, [`groups`] members of consumer groups.
//!
//! Promises: only one broker runs at a time; each is warmed by loads that do not count; a load that did not do all it was
//! asked for is an error and not a number; results are written only when they are whole. Numbers are for people: nothing
//! fails because of a slow one.

mod chart;
mod clients;
mod coordinators;
mod curves;
mod groups;
mod loads;
mod options;
mod report;
mod sampling;
mod scale;
mod session;
mod soak;
mod table;
mod wire;

use crate::broker;
use crate::error::{AtPath, Error, Result};
use crate::kafka;
use crate::process::{child_command, must_succeed, root};
use options::{Command, Options};
use session::Setup;
use std::collections::BTreeMap;

/// Named numbers of one load; the names say the unit.
type Values = BTreeMap<&'static str, f64>;

/// What one run of one load came to.
#[derive(Debug)]
struct Measurement {
    load: &'static str,
    setup: Setup,
    run: u32,
    /// Where on its curve the load was, if it has one: partitions, records in the log, consumers.
    point: Option<u64>,
    values: Values,
}

/// Everything that was measured.
#[derive(Debug, Default)]
struct Results(Vec<Measurement>);

impl Results {
    fn add(&mut self, load: &'static str, setup: Setup, run: u32, point: Option<u64>, values: Values) {
        let shown: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{name} {}", table::number(*value)))
            .collect();
        let at = point.map(|point| format!(" at {point}")).unwrap_or_default();
        eprintln!("{} {load}{at}: {}", setup.name(), shown.join(", "));
        self.0.push(Measurement {
            load,
            setup,
            run,
            point,
            values,
        });
    }

    /// The median over the runs.
    fn median(&self, load: &str, setup: Setup, point: Option<u64>, value: &str) -> Option<f64> {
        let wanted = |one: &&Measurement| one.load == load && one.setup == setup && one.point == point;
        let runs = self.0.iter().filter(wanted);
        sampling::median(runs.filter_map(|one| one.values.get(value).copied()).collect())
    }

    /// The most that any of the loads of [`loads`] ever showed.
    fn most(&self, kind: broker::Kind, value: &str) -> Option<f64> {
        let is_load = |one: &&Measurement| loads::LOADS.iter().any(|load| load.name == one.load);
        let all = self.0.iter().filter(is_load);
        all.filter(|one| one.setup.kind() == kind)
            .filter_map(|one| one.values.get(value).copied())
            .max_by(f64::total_cmp)
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match options::parse(arguments)? {
        Command::Measure(options) => measure(&options),
        Command::Soak(options) => {
            build_broker()?;
            soak::run(&options)
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    sampling::allow_many_files();
    // Its tool makes round trips whatever else is wanted.
    kafka::install()?;
    build_broker()?;
    let mut results = Results::default();
    let mut failures = Vec::new();
    for run in 1..=options.runs {
        eprintln!("run {run} of {}", options.runs);
        for setup in Setup::ALL {
            if !options.brokers.contains(&setup.kind()) {
                continue;
            }
            // One that fails does not take from a long run what the others have shown.
            for part in [
                scale::starts,
                loads::run,
                scale::partitions,
                scale::large_group,
                curves::run,
            ] {
                if let Err(error) = part(options, setup, run, &mut results) {
                    eprintln!("{}: {error}", setup.name());
                    failures.push(format!("{} in run {run}: {error}", setup.name()));
                }
            }
        }
    }
    let report = report::Report::new(options, &results);
    print!("{}", report.everything());
    if options.write || (options.is_whole() && failures.is_empty()) {
        report.write()?;
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Error::new(failures.join("\n")))
    }
}

fn build_broker() -> Result<()> {
    if broker::binary_is_given() {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = child_command(cargo);
    must_succeed(
        command
            .args(["build", "--release", "--quiet", "--package", "milena"])
            .current_dir(root()),
        None,
    )
}

/// Writes a file below `bench/`.
fn write_result(name: &str, text: &str) -> Result<()> {
    let directory = root().join("bench");
    std::fs::create_dir_all(&directory).at(&directory)?;
    let path = directory.join(name);
    std::fs::write(&path, text).at(&path)?;
    eprintln!("wrote {}", path.display());
    Ok(())
}
