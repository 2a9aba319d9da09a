//! `cargo xtask test`: everything that must hold before a change is taken.
//!
//! First what needs only Rust (format, lints, every crate's tests), then the suites of real clients, a few at a time.
//! Ends with the plain line `N passed, N failed`.

use crate::broker::Kind;
use crate::error::{Error, Result};
use crate::process::{child_command, own_program, root, tail, workshop};
use crate::suites::{self, Outcome, SUITES, Suite};
use crate::toolchain::{self, Needs};
use std::process::{ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// How many suites run at once when nobody says: the suites mostly wait, and two cores are what everyone has.
const DEFAULT_JOBS: usize = 3;

/// A check that needs only Rust: its name and cargo's arguments.
const CHECKS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    (
        "lints",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
    ),
    ("cargo-test", &["test", "--workspace", "--no-fail-fast"]),
];

#[derive(Debug)]
struct Options {
    only: Vec<String>,
    against: Kind,
    skip_checks: bool,
    jobs: usize,
}

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    if arguments.iter().any(|argument| argument == "--list") {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    let options = parse(arguments)?;
    own_program()?;
    let begin = Instant::now();
    let mut outcomes = Vec::new();
    if options.against == Kind::Milena && !options.skip_checks {
        for (name, arguments) in CHECKS.iter().filter(|(name, _)| wanted(&options, name)) {
            outcomes.push(report(check(name, arguments)?));
        }
    }
    let runs_there = |suite: &&Suite| options.against == Kind::Milena || !suite.only_milena;
    let chosen: Vec<&'static Suite> = SUITES
        .iter()
        .filter(|suite| wanted(&options, suite.name))
        .filter(runs_there)
        .collect();
    if !chosen.is_empty() {
        if options.against == Kind::Milena {
            build_broker()?;
        }
        outcomes.extend(run_suites(&chosen, &options));
    }
    Ok(conclude(&outcomes, begin))
}

fn list() {
    for (name, arguments) in CHECKS {
        println!("{name:20} cargo {}", arguments.join(" "));
    }
    for suite in SUITES {
        println!("{:20} {}", suite.name, suite.proves);
    }
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        only: Vec::new(),
        against: Kind::Milena,
        skip_checks: false,
        jobs: DEFAULT_JOBS,
    };
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| Error::new(format!("{flag} needs a value")))
        };
        match flag.as_str() {
            "--only" => options.only.push(value()?.clone()),
            "--against" => options.against = Kind::parse(value()?)?,
            "--skip-checks" => options.skip_checks = true,
            "--jobs" => {
                let text = value()?;
                let jobs = text.parse().ok().filter(|jobs| *jobs > 0);
                options.jobs =
                    jobs.ok_or_else(|| Error::new(format!("--jobs {text} is no number above 0")))?;
            }
            other => return Err(Error::new(format!("test has no option {other}"))),
        }
    }
    let known = |name: &String| {
        CHECKS.iter().any(|(check, _)| check == name) || SUITES.iter().any(|suite| suite.name == name)
    };
    match options.only.iter().find(|name| !known(name)) {
        Some(name) => Err(Error::new(format!(
            "there is nothing named '{name}'; --list shows what there is"
        ))),
        None => Ok(options),
    }
}

fn wanted(options: &Options, name: &str) -> bool {
    options.only.is_empty() || options.only.iter().any(|only| only == name)
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs one of cargo's checks. `cargo test` counts its own tests; the others count as one.
fn check(name: &'static str, arguments: &[&str]) -> Result<Outcome> {
    let begin = Instant::now();
    eprintln!("{name}: cargo {} …", arguments.join(" "));
    let log = workshop().join(format!("check-{name}.log"));
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let mut command = child_command(cargo());
    let status = crate::process::run_to_end(command.args(arguments).current_dir(root()), Some(&log))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let (mut passed, mut failed) = count_tests(&text);
    if passed + failed == 0 {
        passed = usize::from(status.success());
    }
    if !status.success() {
        failed = failed.max(1);
    }
    let details = if failed == 0 {
        String::new()
    } else {
        failures(&text) + &tail(&log, 60)
    };
    Ok(Outcome {
        name,
        passed,
        failed,
        seconds: begin.elapsed().as_secs_f64(),
        details,
    })
}

/// Sums cargo's lines `test result: ok. 12 passed; 0 failed; …`.
fn count_tests(text: &str) -> (usize, usize) {
    let mut sums = (0, 0);
    for line in text.lines().filter(|line| line.starts_with("test result: ")) {
        let number_before = |word: &str| -> usize {
            let before = line.split(word).next().unwrap_or_default();
            before
                .trim_end()
                .rsplit(' ')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        sums.0 += number_before(" passed");
        sums.1 += number_before(" failed");
    }
    sums
}

fn failures(text: &str) -> String {
    let failed = text
        .lines()
        .filter(|line| line.starts_with("test ") && line.ends_with("FAILED"));
    failed.map(|line| format!("   {line}\n")).collect()
}

fn build_broker() -> Result<()> {
    if crate::broker::binary_is_given() {
        return Ok(());
    }
    eprintln!("building the broker …");
    let mut command = child_command(cargo());
    command
        .args(["build", "--release", "--quiet", "--package", "milena"])
        .stdout(Stdio::inherit());
    crate::process::must_succeed(command.current_dir(root()), None)
}

/// Installs what the suites need, then runs them, `jobs` at once. A suite whose needs cannot be met has failed.
fn run_suites(chosen: &[&'static Suite], options: &Options) -> Vec<Outcome> {
    let mut unmet: Vec<(Needs, String)> = Vec::new();
    for needs in [Needs::Kafka, Needs::Python, Needs::Go, Needs::Node, Needs::Kcat] {
        let anyone = chosen.iter().any(|suite| suite.needs.contains(&needs));
        if (anyone || (needs == Needs::Kafka && options.against == Kind::Kafka))
            && let Err(error) = toolchain::install(needs)
        {
            unmet.push((needs, error.to_string()));
        }
    }
    let queue = Mutex::new(chosen.iter());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next().copied());
                    let Some(suite) = next else { break };
                    let missing = unmet.iter().find(|(needs, _)| suite.needs.contains(needs));
                    let outcome = match missing {
                        Some((_, why)) => Outcome {
                            name: suite.name,
                            passed: 0,
                            failed: 1,
                            seconds: 0.0,
                            details: format!("   {why}\n"),
                        },
                        None => suites::run(suite, options.against),
                    };
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(report(outcome));
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

fn report(outcome: Outcome) -> Outcome {
    let verdict = if outcome.failed == 0 { "ok    " } else { "FAILED" };
    println!(
        "{verdict} {:20} {:4} passed {:3} failed {:7.1} s\n{}",
        outcome.name, outcome.passed, outcome.failed, outcome.seconds, outcome.details
    );
    outcome
}

fn conclude(outcomes: &[Outcome], begin: Instant) -> ExitCode {
    let passed: usize = outcomes.iter().map(|outcome| outcome.passed).sum();
    let failed: usize = outcomes.iter().map(|outcome| outcome.failed).sum();
    let faulty: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.failed > 0)
        .map(|outcome| outcome.name)
        .collect();
    if !faulty.is_empty() {
        println!("failed: {}", faulty.join(", "));
    }
    println!("in {:.0} s", begin.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
