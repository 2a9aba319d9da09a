//! `cargo xtask differential`: the same raw requests to Apache Kafka and to Milena, and their answers field by field.
//!
//! Promises: an answer of Milena that differs from the reference's, in any version of any API, fails unless
//! `tests/differential/differences.md` says why; a reason that is no longer needed fails as well. APIs that Milena does not
//! advertise are listed and not counted as differences.
//!
//! It leaves to the suites of real clients what only a real client shows: that the answers are of use.

mod batches;
mod cases;
pub(crate) mod codec;
mod differences;
mod mask;
mod recording;
// The reader of definitions that generates the protocol crate. A definition that it cannot read stops the build there.
#[allow(dead_code, clippy::expect_used)]
#[path = "../../../crates/protocol/build/schema.rs"]
mod schema;
mod session;

use crate::broker::{self, Broker, Kind};
use crate::error::{Error, Result};
use crate::process::workshop;
pub(crate) use cases::{Api, apis};
use cases::{Case, cases, versions_of};
use differences::{Row, compare, table, unexplained};
use recording::Answers;
use serde_json::Value;
use session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What both brokers are told: no wait for more members, as no case has two at once.
const SETTINGS: &[(&str, &str)] = &[("group.initial.rebalance.delay.ms", "0")];

/// Most cases wait: for a topic to be led, or for an answer that does not come.
const CASES_AT_ONCE: usize = 24;

#[derive(Debug, Default)]
struct Options {
    record: bool,
    recorded: bool,
    only: Vec<String>,
}

pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--record" => options.record = true,
            "--recorded" => options.recorded = true,
            "--only" => {
                let names = arguments
                    .next()
                    .ok_or_else(|| Error::new("--only needs the name of an API"))?;
                options.only.extend(names.split(',').map(str::to_string));
            }
            other => return Err(Error::new(format!("differential has no option {other}"))),
        }
    }
    let apis = apis()?;
    if let Some(unknown) = options
        .only
        .iter()
        .find(|name| apis.iter().all(|api| api.name != **name))
    {
        return Err(Error::new(format!("brokers have no API {unknown}")));
    }
    let directory = workshop()
        .join("runs")
        .join(format!("differential-{}", std::process::id()));
    let mut reference = AllAnswers::new();
    if !options.recorded {
        let kafka = start(Kind::Kafka, &directory.join("kafka"))?;
        reference = ask(&apis, wanted(&apis, &options), kafka.address)?;
        drop(kafka);
        if options.record {
            for (api, answers) in &reference {
                recording::write(api, answers)?;
            }
            std::fs::remove_dir_all(&directory)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    if options.recorded {
        reference = recorded(&apis, &options)?;
    }
    let milena = start(Kind::Milena, &directory.join("milena"))?;
    let outcome = judge(&apis, &options, &reference, milena.address);
    drop(milena);
    std::fs::remove_dir_all(&directory)?;
    outcome
}

fn start(kind: Kind, directory: &std::path::Path) -> Result<Broker> {
    let settings: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|(key, value)| ((*key).to_string(), (*value).to_string()))
        .collect();
    broker::start(kind, directory, &settings, false)
}

fn wanted<'a>(apis: &'a [Api], options: &Options) -> impl Iterator<Item = &'a Api> {
    let only: BTreeSet<String> = options.only.iter().cloned().collect();
    apis.iter()
        .filter(move |api| only.is_empty() || only.contains(&api.name))
}

/// What a broker answers, by API.
type AllAnswers = BTreeMap<String, Answers>;

/// Asks a broker everything that is there of these APIs: many cases at once, and at the end, one by one, those that change
/// what others are answered.
fn ask<'a>(apis: &[Api], wanted: impl Iterator<Item = &'a Api>, address: SocketAddr) -> Result<AllAnswers> {
    Session::new(apis, address).warm_up()?;
    let mut tasks = Vec::new();
    for api in wanted {
        tasks.extend(cases(api)?.into_iter().map(|case| (api, case)));
    }
    let (alone, together): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|(_, case)| case.alone);
    let answers = Mutex::new(AllAnswers::new());
    for (tasks, at_once) in [(together, CASES_AT_ONCE), (alone, 1)] {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut session = Session::new(apis, address);
            while let Some((api, case)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let of_case = ask_case(&mut session, api, case)?;
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                let of_api = answers.entry(api.name.clone()).or_default();
                of_api.insert(case.name.clone(), of_case);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(Error::new("a case panicked")))
            })
        })?;
    }
    Ok(answers.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn ask_case(session: &mut Session<'_>, api: &Api, case: &Case) -> Result<BTreeMap<i16, Value>> {
    let within =
        |version: i16, error: Error| Error::new(format!("{} v{version} '{}': {error}", api.name, case.name));
    versions_of(case.versions)
        .map(|version| {
            let answer = session.run(api, case, version);
            Ok((version, answer.map_err(|error| within(version, error))?))
        })
        .collect()
}

fn recorded(apis: &[Api], options: &Options) -> Result<AllAnswers> {
    wanted(apis, options)
        .map(|api| Ok((api.name.clone(), recording::read(&api.name)?)))
        .collect()
}

/// Asks a broker and compares what it answers with what the reference does.
fn judge(apis: &[Api], options: &Options, reference: &AllAnswers, address: SocketAddr) -> Result<ExitCode> {
    let advertised = Session::new(apis, address).advertised()?;
    let is_there = |api: &Api| advertised.iter().any(|(key, ..)| *key == i64::from(api.key));
    let mut answers = ask(apis, wanted(apis, options).filter(|api| is_there(api)), address)?;
    let rows = table()?;
    let mut failed = 0;
    let mut judged = Vec::new();
    for api in wanted(apis, options) {
        let Some(answers) = answers.remove(&api.name) else {
            println!("not there yet: {}", api.name);
            continue;
        };
        judged.push(api.name.as_str());
        let no_answers = Answers::new();
        let reference = reference.get(&api.name).unwrap_or(&no_answers);
        let (checked, wrong) = judge_api(api, reference, answers, &rows);
        if wrong == 0 {
            println!("ok {}: {checked} answers as Kafka's", api.name);
        } else {
            println!("not ok {}: {wrong} of {checked} answers differ", api.name);
        }
        failed += wrong;
    }
    let whole = options.only.is_empty();
    for row in rows.iter().filter(|row| !row.used.get()) {
        if judged.iter().any(|api| row.is_about(api)) && (whole || !row.shown().starts_with("| *")) {
            println!(
                "not ok differences.md explains what no longer differs: {}",
                row.shown()
            );
            failed += 1;
        }
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How many answers were compared, and how many are wrong.
fn judge_api(api: &Api, reference: &Answers, answers: Answers, rows: &[Row]) -> (usize, usize) {
    let (mut checked, mut wrong) = (0, 0);
    for (case, versions) in answers {
        for (version, answer) in versions {
            checked += 1;
            let Some(reference) = reference.get(&case).and_then(|of_case| of_case.get(&version)) else {
                println!(
                    "  {} v{version} '{case}': not recorded; cargo xtask differential --record",
                    api.name
                );
                wrong += 1;
                continue;
            };
            let found = unexplained(rows, &api.name, version, &case, compare(reference, &answer));
            wrong += usize::from(!found.is_empty());
            for one in found {
                println!(
                    "  {} v{version} '{case}' {}\n      kafka  {}\n      milena {}",
                    api.name, one.field, one.kafka, one.milena
                );
            }
        }
    }
    (checked, wrong)
}
