//! `--reset-offsets`: where a group that is not active goes on reading.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::messages::OffsetCommitRequest;
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::{ErrorCode, Str};

use super::{
    EARLIEST, LATEST, TopicPartition, committed, group, offsets_at, partitions_named, print_error,
    wanted_groups,
};
use crate::options::Options;
use crate::{ToolError, ToolResult, admin};

pub(super) const SCENARIOS: [&str; 8] = [
    "to-offset",
    "to-datetime",
    "by-duration",
    "to-earliest",
    "to-latest",
    "shift-by",
    "to-current",
    "from-file",
];

type Plan = BTreeMap<TopicPartition, i64>;

pub(super) async fn run(client: &mut Client, options: &Options) -> ToolResult {
    let ids = wanted_groups(client, options).await?;
    let mut plans: BTreeMap<Str, Plan> = BTreeMap::new();
    for id in &ids {
        let state = match group::describe(client, id).await {
            Ok(group) => group.state.to_string(),
            Err(ToolError::Failed(text)) if text.contains("GroupIdNotFound") => "Dead".to_owned(),
            Err(error) => return Err(error),
        };
        if state != "Empty" && state != "Dead" {
            print_error(&format!(
                "Assignments can only be reset if the group '{id}' is inactive, but the current state is {state}."
            ));
            plans.insert(id.clone(), Plan::new());
            continue;
        }
        let plan = plan(client, options, id, ids.len() == 1).await?;
        if options.has("execute") {
            commit(client, id, &plan).await?;
        }
        plans.insert(id.clone(), plan);
    }
    if options.has("export") {
        let single = options.all("group").len() == 1;
        for (id, plan) in &plans {
            for ((topic, partition), offset) in plan {
                let group = if single { String::new() } else { format!("{id},") };
                println!("{group}{topic},{partition},{offset}");
            }
        }
        println!();
    } else {
        print_plans(&plans);
    }
    Ok(())
}

fn print_plans(plans: &BTreeMap<Str, Plan>) {
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

async fn plan(client: &mut Client, options: &Options, id: &Str, single: bool) -> ToolResult<Plan> {
    if let Some(path) = options.get("from-file") {
        let wanted = from_file(path, id, single)?;
        return within_range(client, wanted).await;
    }
    let partitions: BTreeSet<TopicPartition> = if options.has("all-topics") {
        committed(client, id).await?.into_keys().collect()
    } else if options.has("topic") {
        partitions_named(client, options.all("topic")).await?
    } else {
        return Err(ToolError::Usage(
            "One of the reset scopes should be defined: --all-topics, --topic.".into(),
        ));
    };
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
        let now = committed(client, id).await?;
        let mut wanted = Plan::new();
        for one in partitions {
            let current = now.get(&one).ok_or_else(|| {
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
        let now = committed(client, id).await?;
        let ends = offsets_at(client, &partitions, LATEST).await?;
        let current = partitions
            .iter()
            .filter_map(|one| {
                let offset = now
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
fn complete(found: Plan, partitions: &BTreeSet<TopicPartition>, which: &str) -> ToolResult<Plan> {
    match partitions.iter().find(|one| !found.contains_key(*one)) {
        Some((topic, partition)) => Err(ToolError::Usage(format!(
            "Error getting {which} offset of topic partition: {topic}-{partition}"
        ))),
        None => Ok(found),
    }
}

/// Offsets that the logs do not have become the nearest that they have.
async fn within_range(client: &mut Client, wanted: Plan) -> ToolResult<Plan> {
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
    let ends = complete(
        offsets_at(client, partitions, LATEST).await?,
        partitions,
        "ending",
    )?;
    Ok(ends
        .into_iter()
        .map(|(one, end)| {
            let offset = found
                .get(&one)
                .copied()
                .filter(|offset| *offset >= 0)
                .unwrap_or(end);
            (one, offset)
        })
        .collect())
}

/// `2026-03-15T10:30:00.000`, local time unless a zone or `Z` follows.
fn datetime_ms(text: &str) -> ToolResult<i64> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.as_millisecond());
    }
    let wrong = |error: jiff::Error| ToolError::Usage(format!("Unparseable date: \"{text}\" ({error})"));
    let local: DateTime = text.parse().map_err(wrong)?;
    Ok(local
        .to_zoned(TimeZone::system())
        .map_err(wrong)?
        .timestamp()
        .as_millisecond())
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
fn from_file(path: &str, id: &Str, single: bool) -> ToolResult<Plan> {
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

async fn commit(client: &mut Client, id: &Str, plan: &Plan) -> ToolResult {
    let mut topics: BTreeMap<Str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition_index), offset) in plan {
        topics
            .entry(topic.clone())
            .or_default()
            .push(OffsetCommitRequestPartition {
                partition_index: *partition_index,
                committed_offset: *offset,
                committed_metadata: Some(Str::default()),
                ..OffsetCommitRequestPartition::default()
            });
    }
    if topics.is_empty() {
        return Ok(());
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| OffsetCommitRequestTopic {
            name,
            partitions,
            ..OffsetCommitRequestTopic::default()
        })
        .collect();
    let request = OffsetCommitRequest {
        group_id: id.clone(),
        topics,
        ..OffsetCommitRequest::default()
    };
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    // Version 9 names topics; version 10 wants ids.
    let version = client
        .version_of::<OffsetCommitRequest>(coordinator)
        .await?
        .min(9);
    for topic in client
        .send_version_to(coordinator, &request, version)
        .await?
        .topics
    {
        for one in topic.partitions {
            if ErrorCode::from_code(one.error_code) != ErrorCode::None {
                admin::check(one.error_code, None)?;
            }
        }
    }
    Ok(())
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
        assert!(datetime_ms("yesterday").is_err());
    }

    #[test]
    fn a_duration_goes_back_from_now() {
        let now = Timestamp::now().as_millisecond();
        let day_ago = before_now_ms("P1D").unwrap();
        assert!((now - 86_400_000..now - 86_390_000).contains(&day_ago));
        assert!(before_now_ms("1 day").is_ok() || before_now_ms("soon").is_err());
    }
}
