//! The results for people: tables beside the targets, in `bench/results.md` and in the README, and the raw numbers in
//! `bench/results.json`.

use super::chart::{self, Bar, Panel, Series};
use super::curves::{CURVES, Curve};
use super::groups::MEMBERS;
use super::loads::{LOADS, What};
use super::options::Options;
use super::sampling::{Circumstances, circumstances};
use super::scale::{CONNECTIONS, KAFKA_PARTITIONS, LARGE_GROUP, MILENA_PARTITIONS, PARTITIONS, START};
use super::session::Setup;
use super::table::{Row, Table, Target, number, whole};
use super::{Results, write_result};
use crate::broker::Kind;
use crate::error::{AtPath, Error, Result};
use crate::kafka;
use crate::process::root;
use serde_json::json;
use std::fmt::Write as _;

const MARKER_BEGIN: &str = "<!-- bench:begin -->";
const MARKER_END: &str = "<!-- bench:end -->";

/// Rows of one value of all loads, those with `durability=os` beside them.
fn load_rows(
    results: &Results,
    value: &str,
    unit: &'static str,
    target: impl Fn(&super::loads::Load, Setup) -> Target,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for load in LOADS {
        for setup in [Setup::Durable, Setup::Os] {
            let what = match setup {
                Setup::Os if load.os.is_none() => continue,
                Setup::Os => format!("{}, `durability=os`", load.title),
                _ => load.title.to_string(),
            };
            rows.push(Row {
                what,
                kafka: results.median(load.name, Setup::Kafka, None, value),
                milena: results.median(load.name, setup, None, value),
                unit,
                target: target(load, setup),
                shown: None,
            });
        }
    }
    rows.retain(|row| row.kafka.is_some() || row.milena.is_some());
    rows
}

fn cpu_table(results: &Results) -> Table {
    let target = |load: &super::loads::Load, setup: Setup| match setup {
        Setup::Os => load.os.flatten().map_or(Target::None, Target::Factor),
        _ => load.target.map_or(Target::None, Target::Factor),
    };
    Table {
        title: "broker's CPU time",
        is_rate: false,
        rows: load_rows(results, "cpu_seconds", "s", target),
    }
}

fn per_record_table(results: &Results) -> Table {
    Table {
        title: "broker's CPU time per record (round trip, transaction, commit)",
        is_rate: false,
        rows: load_rows(results, "cpu_us_per_record", "µs", |_, _| Target::None),
    }
}

fn rate_table(results: &Results) -> Table {
    Table {
        title: "records (round trips, transactions, commits) per second",
        is_rate: true,
        rows: load_rows(results, "records_per_second", "/s", |load, _| match load.what {
            // Its rate is what it was told.
            What::Steady => Target::None,
            _ => Target::Factor(1.0),
        }),
    }
}

/// All three percentiles; the 99th is what is compared.
fn latency_table(results: &Results) -> Table {
    let target = |load: &super::loads::Load, setup: Setup| match (&load.what, setup) {
        (What::Wire, Setup::Durable) => Target::Factor(2.0),
        _ => Target::None,
    };
    let rows = |value| load_rows(results, value, "ms", target);
    let triples = rows("p50_ms")
        .into_iter()
        .zip(rows("p99_ms"))
        .zip(rows("p999_ms"));
    let joined = triples.map(|((p50, p99), p999)| {
        let cell = |of: fn(&Row) -> Option<f64>| {
            [&p50, &p99, &p999]
                .map(|row| of(row).map_or("–".to_string(), number))
                .join(" / ")
                + " ms"
        };
        let shown = Some([cell(|row| row.kafka), cell(|row| row.milena)]);
        Row { shown, ..p99 }
    });
    Table {
        title: "latency: p50 / p99 (compared) / p99.9",
        is_rate: false,
        rows: joined.collect(),
    }
}

fn scale_table(results: &Results) -> Table {
    let row = |what: String, load: &str, value: &str, unit, target| Row {
        what,
        kafka: results.median(load, Setup::Kafka, None, value),
        milena: results.median(load, Setup::Durable, None, value),
        unit,
        target,
        shown: None,
    };
    let many = format!(
        "{} partitions (Kafka: {})",
        whole(MILENA_PARTITIONS),
        whole(KAFKA_PARTITIONS)
    );
    let mut rows = vec![
        row(
            "start to the first answer".into(),
            START,
            "start_ms",
            "ms",
            Target::None,
        ),
        row("memory when idle".into(), START, "idle_mib", "MiB", Target::None),
        Row {
            what: "memory at most, over all loads".into(),
            kafka: results.most(Kind::Kafka, "peak_mib"),
            milena: results.most(Kind::Milena, "peak_mib"),
            unit: "MiB",
            target: Target::AtMost(64.0),
            shown: None,
        },
    ];
    for (what, value, unit, target) in [
        ("created", "create_ms", "ms", Target::AtMost(5_000.0)),
        (
            "`kill -9` to the first answer",
            "restart_ms",
            "ms",
            Target::AtMost(1_000.0),
        ),
        (
            "`kill -9` to the end offset of each",
            "offsets_ms",
            "ms",
            Target::None,
        ),
        ("memory", "resident_mib", "MiB", Target::None),
    ] {
        rows.push(row(format!("{many}: {what}"), PARTITIONS, value, unit, target));
    }
    rows.push(row(
        format!(
            "{many}: memory with {} idle connections on top",
            whole(CONNECTIONS)
        ),
        PARTITIONS,
        "resident_with_connections_mib",
        "MiB",
        Target::AtMost(128.0),
    ));
    let large = format!(
        "one consumer group of {0} members over {0} partitions",
        whole(MEMBERS)
    );
    for (what, value, unit, target) in [
        (
            "at rest after all have joined",
            "first_rest_ms",
            "ms",
            Target::None,
        ),
        (
            "at rest after one more has joined",
            "join_ms",
            "ms",
            Target::AtMost(2_000.0),
        ),
        ("memory", "resident_mib", "MiB", Target::AtMost(200.0)),
        ("CPU time of a heartbeat", "heartbeat_us", "µs", Target::None),
        (
            "the same of a group of 10",
            "small_heartbeat_us",
            "µs",
            Target::None,
        ),
    ] {
        rows.push(row(format!("{large}: {what}"), LARGE_GROUP, value, unit, target));
    }
    rows.retain(|row| row.kafka.is_some() || row.milena.is_some());
    Table {
        title: "starts, memory, partitions",
        is_rate: false,
        rows,
    }
}

#[allow(clippy::cast_precision_loss)]
fn count(value: u64) -> f64 {
    value as f64
}

fn curve_table(results: &Results, curve: &Curve) -> Option<String> {
    let mut head = format!("| {} |", curve.title);
    for (_, title) in curve.values {
        let _ = write!(head, " Kafka: {title} | Milena: {title} |");
    }
    let columns = "---: | ".repeat(1 + 2 * curve.values.len());
    let mut text = format!("{head}\n| {}\n", columns.trim_end());
    let mut is_empty = true;
    for point in curve.points {
        let _ = write!(text, "| {} |", whole(*point));
        for (value, _) in curve.values {
            for setup in [Setup::Kafka, Setup::Durable] {
                let found = results.median(curve.name, setup, Some(*point), value);
                is_empty &= found.is_none();
                let cell = found.map_or("–".to_string(), |found| format!("{} µs", number(found)));
                let _ = write!(text, " {cell} |");
            }
        }
        text.push('\n');
    }
    (!is_empty).then_some(text)
}

fn curve_panels(results: &Results, curve: &Curve) -> Vec<Panel> {
    let of = |setup: Setup, value: &str| -> Vec<(f64, f64)> {
        let points = curve.points.iter();
        points
            .filter_map(|point| {
                Some((
                    count(*point),
                    results.median(curve.name, setup, Some(*point), value)?,
                ))
            })
            .collect()
    };
    let panel = |(value, title): &(&'static str, &'static str)| Panel {
        title: format!("{title}: CPU µs per record, by {}", curve.title),
        is_log: curve.is_log,
        series: vec![
            Series {
                name: "Kafka",
                points: of(Setup::Kafka, value),
            },
            Series {
                name: "Milena",
                points: of(Setup::Durable, value),
            },
        ],
    };
    curve.values.iter().map(panel).collect()
}

#[derive(Debug)]
pub(super) struct Report {
    /// What the README shows.
    headline: String,
    details: String,
    json: String,
    bars: Vec<Bar>,
    panels: Vec<Panel>,
}

impl Report {
    pub(super) fn new(options: &Options, results: &Results) -> Self {
        let around = circumstances();
        let cpu = cpu_table(results);
        let mut headline = format!("{}\n\n", introduction(&around, options));
        for table in [&cpu, &scale_table(results)] {
            if !table.rows.is_empty() {
                let _ = writeln!(headline, "{}", table.text());
            }
        }
        let mut details = String::new();
        let tables = [
            rate_table(results),
            latency_table(results),
            per_record_table(results),
        ];
        for table in tables.iter().filter(|table| !table.rows.is_empty()) {
            let _ = writeln!(details, "{}", table.text());
        }
        let curves: Vec<String> = CURVES
            .iter()
            .filter_map(|curve| curve_table(results, curve))
            .collect();
        if !curves.is_empty() {
            let _ = writeln!(
                details,
                "Broker's CPU time per record as the log grows:\n\n{}",
                curves.join("\n")
            );
        }
        let bars = cpu.rows.iter().filter_map(|row| {
            Some(Bar {
                name: row.what.replace('`', ""),
                factor: row.factor(false)?,
                target: match row.target {
                    Target::Factor(target) => Some(target),
                    _ => None,
                },
            })
        });
        Self {
            bars: bars.collect(),
            panels: CURVES
                .iter()
                .flat_map(|curve| curve_panels(results, curve))
                .collect(),
            json: json(&around, options, results),
            headline,
            details,
        }
    }

    pub(super) fn everything(&self) -> String {
        format!("{}{}", self.headline, self.details)
    }

    pub(super) fn write(&self) -> Result<()> {
        let pictures =
            "![CPU time, Kafka ÷ Milena](results.svg)\n\n![CPU time per record as the log grows](curves.svg)";
        write_result("results.json", &self.json)?;
        write_result(
            "results.md",
            &format!("{}\n{pictures}\n", self.everything().trim_end()),
        )?;
        write_result("results.svg", &chart::bars(&self.bars))?;
        write_result("curves.svg", &chart::panels(&self.panels))?;
        include_in_readme(&format!(
            "![CPU time, Kafka ÷ Milena](bench/results.svg)\n\n{}Rates, latencies and curves: \
             [bench/results.md](bench/results.md).\n",
            self.headline
        ))
    }
}

fn introduction(around: &Circumstances, options: &Options) -> String {
    format!(
        "{} cores of {}, {:.0} GiB, {}; {}; Milena {}. {}",
        around.cores,
        around.cpu,
        around.memory_gib,
        around.kernel,
        around.date,
        around.commit,
        options.described()
    )
}

fn json(around: &Circumstances, options: &Options, results: &Results) -> String {
    let measurements: Vec<serde_json::Value> = results
        .0
        .iter()
        .map(|one| {
            json!({
                "load": one.load,
                "broker": one.setup.name(),
                "run": one.run,
                "point": one.point,
                "values": one.values,
            })
        })
        .collect();
    let all = json!({
        "date": around.date,
        "machine": {
            "cpu": around.cpu,
            "cores": around.cores,
            "memory_gib": around.memory_gib,
            "kernel": around.kernel,
        },
        "versions": {
            "kafka": kafka::VERSION,
            "java": around.java,
            "milena": env!("CARGO_PKG_VERSION"),
            "commit": around.commit,
        },
        "how": options.described(),
        "measurements": measurements,
    });
    format!("{all:#}\n")
}

/// Puts the text between the README's markers.
fn include_in_readme(text: &str) -> Result<()> {
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).at(&path)?;
    let parts = readme.split_once(MARKER_BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKER_END)?;
        Some((before, after))
    });
    let (before, after) =
        parts.ok_or_else(|| Error::new(format!("README.md has no {MARKER_BEGIN} … {MARKER_END}")))?;
    let readme = format!("{before}{MARKER_BEGIN}\n{text}{MARKER_END}{after}");
    std::fs::write(&path, readme).at(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Values;

    #[test]
    fn a_target_is_met_by_the_medians_of_the_runs() {
        let mut results = Results::default();
        for (run, kafka, milena) in [(1, 9.0, 1.0), (2, 3.0, 1.0), (3, 3.2, 1.0)] {
            let values = |cpu| Values::from([("cpu_seconds", cpu)]);
            results.add("produce-1k", Setup::Kafka, run, None, values(kafka));
            results.add("produce-1k", Setup::Durable, run, None, values(milena));
            results.add("produce-100b", Setup::Kafka, run, None, values(kafka));
            results.add("produce-100b", Setup::Durable, run, None, values(milena));
        }
        let text = cpu_table(&results).text();
        assert!(text.contains("| 3.20 s | 1.00 s | 3.20 | ≥ 3: met |"), "{text}");
        assert!(
            text.contains("| 3.20 s | 1.00 s | 3.20 | ≥ 4: **missed** |"),
            "{text}"
        );
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let mut results = Results::default();
        let values = Values::from([("cpu_seconds", 1.0)]);
        results.add("produce-1k", Setup::Durable, 1, None, values);
        let text = cpu_table(&results).text();
        assert!(text.contains("| – | 1.00 s | – | ≥ 3 |"), "{text}");
    }
}
