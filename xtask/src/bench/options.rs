//! What `cargo xtask bench` was asked for.

use super::clients::Client;
use super::{curves, loads, scale};
use crate::broker::Kind;
use crate::error::{Error, Result};
use std::time::Duration;

const DEFAULT_RUNS: u32 = 3;
const DEFAULT_SOAK_MINUTES: u64 = 30;
/// `--quick` asks for this part of each load: enough to prove the harness, too little to measure.
const QUICK_DIVISOR: u64 = 50;

#[derive(Debug)]
pub(super) enum Command {
    Measure(Options),
    Soak(SoakOptions),
}

#[derive(Debug)]
pub(super) struct Options {
    pub(super) runs: u32,
    only: Vec<String>,
    quick: bool,
    /// Writes the results though they are not whole.
    pub(super) write: bool,
    pub(super) client: Client,
    pub(super) brokers: Vec<Kind>,
}

#[derive(Debug)]
pub(super) struct SoakOptions {
    pub(super) duration: Duration,
    pub(super) client: Client,
}

impl Options {
    pub(super) fn wants(&self, load: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == load)
    }

    pub(super) fn scaled(&self, count: u64) -> u64 {
        if self.quick {
            (count / QUICK_DIVISOR).max(1)
        } else {
            count
        }
    }

    /// Whether everything was measured, on both brokers, in full.
    pub(super) fn is_whole(&self) -> bool {
        self.only.is_empty() && !self.quick && self.brokers.len() == 2
    }

    /// How the numbers were made, as a sentence for their readers.
    pub(super) fn described(&self) -> String {
        let quick = if self.quick {
            " Quick run: a fiftieth of each load, which proves the harness and measures nothing."
        } else {
            ""
        };
        let runs = match self.runs {
            1 => "One run".to_string(),
            runs => format!("Medians of {runs} runs"),
        };
        format!(
            "{runs}, load generator: {}, on the same machine as the broker.{quick}",
            self.client.title()
        )
    }
}

pub(super) fn parse(arguments: &[String]) -> Result<Command> {
    match arguments.split_first() {
        Some((first, rest)) if first == "soak" => parse_soak(rest).map(Command::Soak),
        _ => parse_measure(arguments).map(Command::Measure),
    }
}

fn above_zero(flag: &str, text: &str) -> Result<u64> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Error::new(format!("{flag} {text} is no number above 0")))
}

fn parse_measure(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        runs: DEFAULT_RUNS,
        only: Vec::new(),
        quick: false,
        write: false,
        client: Client::Native,
        brokers: vec![Kind::Kafka, Kind::Milena],
    };
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| Error::new(format!("{flag} needs a value")))
        };
        match flag.as_str() {
            "--quick" => options.quick = true,
            "--write" => options.write = true,
            "--runs" => {
                let runs = above_zero(flag, value()?)?;
                options.runs = u32::try_from(runs).map_err(|_| Error::new("--runs is too large"))?;
            }
            "--only" => options.only.extend(value()?.split(',').map(str::to_string)),
            "--client" => options.client = Client::parse(value()?)?,
            "--broker" => options.brokers = vec![Kind::parse(value()?)?],
            other => return Err(Error::new(format!("bench has no option {other}"))),
        }
    }
    let known: Vec<&str> = loads::LOADS
        .iter()
        .map(|load| load.name)
        .chain(scale::NAMES)
        .chain(curves::CURVES.iter().map(|curve| curve.name))
        .collect();
    match options.only.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Error::new(format!(
            "there is no load '{name}'. There are: {}",
            known.join(" ")
        ))),
        None => Ok(options),
    }
}

fn parse_soak(arguments: &[String]) -> Result<SoakOptions> {
    let mut minutes = DEFAULT_SOAK_MINUTES;
    let mut client = Client::Native;
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        let value = arguments.next();
        let value = value.ok_or_else(|| Error::new(format!("{flag} needs a value")))?;
        match flag.as_str() {
            "--minutes" => minutes = above_zero(flag, value)?,
            "--client" => client = Client::parse(value)?,
            other => return Err(Error::new(format!("bench soak has no option {other}"))),
        }
    }
    Ok(SoakOptions {
        duration: Duration::from_secs(minutes.saturating_mul(60)),
        client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command> {
        parse(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn only_a_full_run_of_both_brokers_is_whole() {
        for (arguments, whole) in [
            (&[][..], true),
            (&["--runs", "5"], true),
            (&["--quick"], false),
            (&["--only", "produce-1k,consume-1k"], false),
            (&["--broker", "milena"], false),
        ] {
            match parsed(arguments).unwrap() {
                Command::Measure(options) => assert_eq!(options.is_whole(), whole, "{arguments:?}"),
                Command::Soak(_) => panic!("{arguments:?} is no soak"),
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (arguments, named) in [
            (&["--only", "produce-1k,bake"][..], "bake"),
            (&["--client", "go"], "go"),
            (&["--runs", "0"], "--runs 0"),
            (&["--fast"], "--fast"),
            (&["soak", "--minutes"], "--minutes"),
        ] {
            let error = parsed(arguments).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
