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
use cases::{cases, versions_of};
use differences::{Row, compare, table, unexplained};
use recording::Answers;
use session::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// What both brokers are told: no wait for more members, as no case has two at once.
const SETTINGS: &[(&str, &str)] = &[("group.initial.rebalance.delay.ms", "0")];

/// What takes longer is named, so that a slow suite can be mended.
const SLOW: Duration = Duration::from_secs(1);

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
    // The suite of `cargo xtask test` is given a broker.
    if options.recorded
        && let Ok(address) = std::env::var("BOOTSTRAP")
    {
        let address = address
            .parse()
            .map_err(|_| Error::new(format!("BOOTSTRAP={address} is no address")))?;
        let against_kafka = std::env::var("AGAINST").is_ok_and(|name| name == Kind::Kafka.name());
        return judge(
            &apis,
            &options,
            &recorded(&apis, &options)?,
            address,
            against_kafka,
        );
    }
    let directory = workshop()
        .join("runs")
        .join(format!("differential-{}", std::process::id()));
    let mut reference = Reference::new();
    if !options.recorded {
        let kafka = start(Kind::Kafka, &directory.join("kafka"))?;
        reference = ask_reference(&apis, &options, kafka.address)?;
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
    let outcome = judge(&apis, &options, &reference, milena.address, false);
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

fn answers(session: &mut Session<'_>, api: &Api) -> Result<Answers> {
    let mut answers = Answers::new();
    for case in cases(api)? {
        let of_case = answers.entry(case.name.clone()).or_default();
        for version in versions_of(case.versions) {
            let began = std::time::Instant::now();
            let answer = session
                .run(api, &case, version)
                .map_err(|error| Error::new(format!("{} v{version} '{}': {error}", api.name, case.name)))?;
            of_case.insert(version, answer);
            if began.elapsed() > SLOW {
                eprintln!(
                    "{} v{version} '{}' took {:?}",
                    api.name,
                    case.name,
                    began.elapsed()
                );
            }
        }
    }
    Ok(answers)
}

/// What the reference answers, by API.
type Reference = BTreeMap<String, Answers>;

fn ask_reference(apis: &[Api], options: &Options, address: SocketAddr) -> Result<Reference> {
    let mut session = Session::new(apis, address);
    session.warm_up()?;
    let mut reference = Reference::new();
    for api in wanted(apis, options) {
        reference.insert(api.name.clone(), answers(&mut session, api)?);
    }
    Ok(reference)
}

fn recorded(apis: &[Api], options: &Options) -> Result<Reference> {
    wanted(apis, options)
        .map(|api| Ok((api.name.clone(), recording::read(&api.name)?)))
        .collect()
}

/// Asks a broker and compares what it answers with what the reference does.
fn judge(
    apis: &[Api],
    options: &Options,
    reference: &Reference,
    address: SocketAddr,
    is_kafka: bool,
) -> Result<ExitCode> {
    let mut session = Session::new(apis, address);
    session.warm_up()?;
    let advertised = session.advertised()?;
    let rows = if is_kafka { Vec::new() } else { table()? };
    let mut failed = 0;
    let mut judged = Vec::new();
    for api in wanted(apis, options) {
        if !advertised.iter().any(|(key, ..)| *key == i64::from(api.key)) {
            println!("not there yet: {}", api.name);
            continue;
        }
        judged.push(api.name.as_str());
        let no_answers = Answers::new();
        let reference = reference.get(&api.name).unwrap_or(&no_answers);
        let (checked, wrong) = judge_api(&mut session, api, reference, &rows)?;
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

fn judge_api(
    session: &mut Session<'_>,
    api: &Api,
    reference: &Answers,
    rows: &[Row],
) -> Result<(usize, usize)> {
    let (mut checked, mut wrong) = (0, 0);
    for (case, versions) in answers(session, api)? {
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
    Ok((checked, wrong))
}
