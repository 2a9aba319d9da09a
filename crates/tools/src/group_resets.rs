//! Where `--reset-offsets` puts a group's offsets: what each scenario makes of partitions and what is committed of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use milena_client::Client;
use milena_protocol::Str;

use crate::group_admin::{Committed, EARLIEST, LATEST, TopicPartition, offsets_at, print_error};
use crate::options::Options;
use crate::{ToolError, ToolResult};

pub(crate) const SCENARIOS: [&str; 8] = [
    "to-offset",
    "to-datetime",
    "by-duration",
    "to-earliest",
    "to-latest",
    "shift-by",
    "to-current",
    "from-file",
];

pub(crate) type Plan = BTreeMap<TopicPartition, i64>;

/// Plans as `--from-file` reads them: without the group where there is but one.
pub(crate) fn print_csv(plans: &BTreeMap<Str, Plan>, single: bool) {
    for (id, plan) in plans {
        for ((topic, partition), offset) in plan {
            let group = if single { String::new() } else { format!("{id},") };
            println!("{group}{topic},{partition},{offset}");
        }
    }
    println!();
}

/// The table of what a reset gives, or would give.
pub(crate) fn print_plans(plans: &BTreeMap<Str, Plan>) {
    let rows: Vec<[String; 4]> = plans
        .iter()
        .flat_map(|(id, plan)| {
            plan.iter().map(|((topic, partition), offset)| {
                [
                    id.to_string(),
                    topic.to_string(),
                    partition.to_string(),
                    offset.to_string(),
                ]
            })
        })
        .collect();
    let groups = rows.iter().map(|row| row[0].len()).max().unwrap_or(0).max(15);
    let topics = rows.iter().map(|row| row[1].len()).max().unwrap_or(0).max(15);
    print!(
        "\n{:<groups$} {:<topics$} {:<10} NEW-OFFSET",
        "GROUP", "TOPIC", "PARTITION"
    );
    for [group, topic, partition, offset] in &rows {
        print!("\n{group:<groups$} {topic:<topics$} {partition:<10} {offset}");
    }
    println!();
}

/// The offsets that the scenario among the flags gives the partitions.
pub(crate) async fn scenario(
    client: &mut Client,
    options: &Options,
    partitions: BTreeSet<TopicPartition>,
    committed: &BTreeMap<TopicPartition, Committed>,
) -> ToolResult<Plan> {
    if let Some(offset) = options.number::<i64>("to-offset")? {
        within_range(client, partitions.into_iter().map(|one| (one, offset)).collect()).await
    } else if options.has("to-earliest") {
        complete(
            offsets_at(client, &partitions, EARLIEST).await?,
            &partitions,
            "starting",
        )
    } else if options.has("to-latest") {
        complete(
            offsets_at(client, &partitions, LATEST).await?,
            &partitions,
            "ending",
        )
    } else if let Some(by) = options.number::<i64>("shift-by")? {
        let mut wanted = Plan::new();
        for one in partitions {
            let current = committed.get(&one).ok_or_else(|| {
                ToolError::Usage(format!(
                    "Cannot shift offset for partition {}-{} since there is no current committed offset",
                    one.0, one.1
                ))
            })?;
            wanted.insert(one, current.offset.saturating_add(by));
        }
        within_range(client, wanted).await
    } else if let Some(text) = options.get("to-datetime") {
        at_time(client, &partitions, datetime_ms(text)?).await
    } else if let Some(text) = options.get("by-duration") {
        at_time(client, &partitions, before_now_ms(text)?).await
    } else if options.has("to-current") {
        let ends = offsets_at(client, &partitions, LATEST).await?;
        let current = partitions
            .iter()
            .filter_map(|one| {
                let offset = committed
                    .get(one)
                    .map(|committed| committed.offset)
                    .or_else(|| ends.get(one).copied())?;
                Some((one.clone(), offset))
            })
            .collect();
        complete(current, &partitions, "ending")
    } else {
        Err(ToolError::Usage(format!(
            "Option '[reset-offsets]' requires one of the following scenarios: [{}]",
            SCENARIOS.join("], [")
        )))
    }
}

/// The offsets, if every partition has one.
pub(crate) fn complete(found: Plan, partitions: &BTreeSet<TopicPartition>, which: &str) -> ToolResult<Plan> {
    match partitions.iter().find(|one| !found.contains_key(*one)) {
        Some((topic, partition)) => Err(ToolError::Usage(format!(
            "Error getting {which} offset of topic partition: {topic}-{partition}"
        ))),
        None => Ok(found),
    }
}

/// Offsets that the logs do not have become the nearest that they have.
pub(crate) async fn within_range(client: &mut Client, wanted: Plan) -> ToolResult<Plan> {
    let partitions: BTreeSet<TopicPartition> = wanted.keys().cloned().collect();
    let starts = complete(
        offsets_at(client, &partitions, EARLIEST).await?,
        &partitions,
        "starting",
    )?;
    let ends = complete(
        offsets_at(client, &partitions, LATEST).await?,
        &partitions,
        "ending",
    )?;
    Ok(wanted
        .into_iter()
        .map(|(one, offset)| {
            let (start, end) = (starts[&one], ends[&one]);
            if offset > end {
                eprintln!("New offset ({offset}) is higher than latest offset for topic partition {}-{}. Value will be set to {end}", one.0, one.1);
            } else if offset < start {
                eprintln!("New offset ({offset}) is lower than earliest offset for topic partition {}-{}. Value will be set to {start}", one.0, one.1);
            }
            (one, offset.clamp(start, end.max(start)))
        })
        .collect())
}

/// The first offset at a time, or the end where nothing is that late.
async fn at_time(
    client: &mut Client,
    partitions: &BTreeSet<TopicPartition>,
    timestamp_ms: i64,
) -> ToolResult<Plan> {
    let found = offsets_at(client, partitions, timestamp_ms).await?;
    let is_found = |one: &TopicPartition| found.get(one).is_some_and(|offset| *offset >= 0);
    let ends = complete(
        offsets_at(client, partitions, LATEST).await?,
        partitions,
        "ending",
    )?;
    for (topic, partition) in partitions.iter().filter(|one| !is_found(one)) {
        println!(
            "\nWarn: Partition {partition} from topic {topic} is empty. Falling back to latest known offset."
        );
    }
    Ok(ends
        .into_iter()
        .map(|(one, end)| {
            let offset = if is_found(&one) { found[&one] } else { end };
            (one, offset)
        })
        .collect())
}

/// `2026-03-15T10:30:00.000`, of UTC unless a zone or `Z` follows. The digits behind the point are milliseconds,
/// however few they are.
fn datetime_ms(text: &str) -> ToolResult<i64> {
    let unparseable = |why: String| ToolError::Failed(format!("java.text.ParseException: {why}"));
    let Some((_, time)) = text.split_once('T') else {
        return Err(unparseable(
            "Error parsing timestamp. It does not contain a 'T' according to ISO8601 format".to_owned(),
        ));
    };
    let zoned = if time.contains(['+', '-', 'Z']) {
        text.to_owned()
    } else {
        format!("{text}Z")
    };
    let parse = || -> Option<i64> {
        let (seconds, rest) = zoned.split_once('.')?;
        let digits = rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len());
        let (millis, zone) = rest.split_at(digits);
        let millis: i64 = millis.parse().ok().filter(|millis| *millis < 1000)?;
        let time: Timestamp = format!("{seconds}{zone}").parse().ok()?;
        time.as_millisecond().checked_add(millis)
    };
    parse().ok_or_else(|| unparseable(format!("Unparseable date: \"{zoned}\"")))
}

/// `P1DT2H`: that long before now.
fn before_now_ms(text: &str) -> ToolResult<i64> {
    let wrong = |error: jiff::Error| {
        ToolError::Usage(format!("Text cannot be parsed to a Duration: {text} ({error})"))
    };
    let span: jiff::Span = text.parse().map_err(wrong)?;
    let duration: SignedDuration = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(wrong)?;
    Ok(Timestamp::now()
        .checked_sub(duration)
        .map_err(wrong)?
        .as_millisecond())
}

/// Lines of `topic,partition,offset`, or with the group in front.
pub(crate) fn from_file(path: &str, id: &Str, single: bool) -> ToolResult<Plan> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ToolError::Failed(format!("{path}: {error}")))?;
    let mut plan = Plan::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line
            .split(',')
            .map(|field| field.trim().trim_matches('"'))
            .collect();
        let (group, topic, partition, offset) = match fields.as_slice() {
            [topic, partition, offset] if single => (&**id, *topic, *partition, *offset),
            [group, topic, partition, offset] => (*group, *topic, *partition, *offset),
            _ => {
                return Err(ToolError::Failed(format!(
                    "{path}: not a line of a reset plan: {line}"
                )));
            }
        };
        let wrong = |_| ToolError::Failed(format!("{path}: not a number in: {line}"));
        if group == &**id {
            plan.insert(
                (Str::from(topic.to_owned()), partition.parse().map_err(wrong)?),
                offset.parse().map_err(wrong)?,
            );
        }
    }
    if plan.is_empty() {
        print_error(&format!("No reset plan for group {id} found"));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_a_zone_is_that_time() {
        assert_eq!(
            datetime_ms("2026-03-15T10:30:00.000Z").unwrap(),
            1_773_570_600_000
        );
        assert_eq!(
            datetime_ms("2026-03-15T12:30:00.000+02:00").unwrap(),
            1_773_570_600_000
        );
        assert_eq!(datetime_ms("2026-03-15T10:30:00.7").unwrap(), 1_773_570_600_007);
        for wrong in [
            "yesterday",
            "2026-03-15",
            "2026-03-15T10:30:00",
            "2026-03-15T10:30:00.1234Z",
        ] {
            let error = datetime_ms(wrong).unwrap_err().to_string();
            assert!(error.starts_with("java.text.ParseException: "), "{error}");
        }
    }

    #[test]
    fn a_duration_goes_back_from_now() {
        let now = Timestamp::now().as_millisecond();
        let day_ago = before_now_ms("P1D").unwrap();
        assert!((now - 86_400_000..now - 86_390_000).contains(&day_ago));
        assert!(before_now_ms("1 day").is_ok() || before_now_ms("soon").is_err());
    }
}
