//! What the commands for groups of all types ask of a cluster: which groups there are, what they have committed, and
//! where their partitions begin and end.
//!
//! Errors leave here in the words of Java's exceptions, which the commands print.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::messages::list_groups_response::ListedGroup;
use milena_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use milena_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use milena_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use milena_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use milena_protocol::messages::{
    DeleteGroupsRequest, ListGroupsRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest,
};
use milena_protocol::{ErrorCode, Str};

use crate::options::Options;
use crate::{ToolError, ToolResult, admin};

pub(crate) type TopicPartition = (Str, i32);

pub(crate) const EARLIEST: i64 = -2;
pub(crate) const LATEST: i64 = -1;

/// What stands where a row has nothing to say.
pub(crate) const MISSING: &str = "-";

pub(crate) fn print_error(message: &str) {
    println!("\nError: {message}");
}

/// Flags of groups' commands that may stand without a value; then they have an empty one.
pub(crate) fn with_optional_values(arguments: &[String], flags: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    let mut arguments = arguments.iter().peekable();
    while let Some(argument) = arguments.next() {
        out.push(argument.clone());
        let optional = flags.contains(&&**argument);
        if optional && arguments.peek().is_none_or(|next| next.starts_with("--")) {
            out.push(String::new());
        }
    }
    out
}

/// Connects as all commands do, and lets a request take as long as `--timeout` says.
pub(crate) async fn connect(options: &Options) -> ToolResult<Client> {
    let timeout_ms = options.number("timeout")?;
    admin::connect_within(options, "admin-client", timeout_ms).await
}

/// Refuses flags that stand without one of those that they belong to.
pub(crate) fn only_with(options: &Options, flags: &[&str], actions: &[&str]) -> ToolResult {
    match flags.iter().find(|flag| options.has(flag)) {
        Some(flag) if !actions.iter().any(|action| options.has(action)) => Err(ToolError::Usage(format!(
            "Option(s) [{flag}] are unavailable given other options on the command line"
        ))),
        _ => Ok(()),
    }
}

/// `--describe` is of some groups, and shows one view of them.
pub(crate) fn check_views(options: &Options) -> ToolResult {
    let views = ["members", "offsets", "state"];
    let refusal = if !options.has("group") && !options.has("all-groups") {
        "Option [describe] takes one of these options: [all-groups], [group]"
    } else if views.iter().filter(|view| options.has(view)).count() > 1 {
        "Option [describe] takes at most one of these options: [members], [offsets], [state]"
    } else if options.get("state").is_some_and(|state| !state.is_empty()) {
        "Option [describe] does not take a value for [state]"
    } else {
        return Ok(());
    };
    Err(ToolError::Usage(refusal.to_owned()))
}

/// `--reset-offsets` of the newer types of groups is either tried or done.
pub(crate) fn check_execution(options: &Options) -> ToolResult {
    let refusal = match (options.has("dry-run"), options.has("execute")) {
        (true, true) => "Option [reset-offsets] only accepts one of [execute] and [dry-run]",
        (false, false) => "Option [reset-offsets] takes the option: [execute] or [dry-run]",
        _ => return Ok(()),
    };
    Err(ToolError::Usage(refusal.to_owned()))
}

/// At most one of these flags.
pub(crate) fn exclude_each_other(options: &Options, flags: &[&str]) -> ToolResult {
    for flag in flags {
        let others: Vec<&str> = flags.iter().filter(|other| *other != flag).copied().collect();
        options.exclude(flag, &others)?;
    }
    Ok(())
}

/// An error with the words that Java's exception has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    message: Option<String>,
}

impl Fault {
    /// The fault that an answer's code and message tell of.
    pub(crate) fn of(code: i16, message: Option<&Str>) -> Option<Self> {
        match ErrorCode::from_code(code) {
            ErrorCode::None => None,
            code => Some(Self {
                code,
                message: message.map(ToString::to_string),
            }),
        }
    }

    /// What Java's exception answers to `getMessage`.
    pub(crate) fn message(&self) -> String {
        let words =
            || admin::default_message(self.code).map_or_else(|| self.code.name().to_owned(), str::to_owned);
        self.message.clone().unwrap_or_else(words)
    }

    /// The exception as it prints itself: its class, and the message.
    pub(crate) fn exception(&self) -> String {
        format!(
            "org.apache.kafka.common.errors.{}: {}",
            class(self.code),
            self.message()
        )
    }
}

/// The name of Java's exception for an error.
fn class(code: ErrorCode) -> String {
    match code {
        ErrorCode::NonEmptyGroup => return "GroupNotEmptyException".to_owned(),
        ErrorCode::UnknownServerError => return "UnknownServerException".to_owned(),
        ErrorCode::KafkaStorageError => return "KafkaStorageException".to_owned(),
        ErrorCode::RequestTimedOut => return "TimeoutException".to_owned(),
        _ => {}
    }
    let words = code.name().trim_end_matches("_EXCEPTION").split('_');
    let camel: String = words
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            format!("{first}{}", rest.to_ascii_lowercase())
        })
        .collect();
    format!("{camel}Exception")
}

/// Groups of the whole cluster in the order that the brokers list them in, narrowed to states and types if some are given.
pub(crate) async fn listed(
    client: &mut Client,
    states: &[Str],
    types: &[Str],
) -> ToolResult<Vec<ListedGroup>> {
    let brokers = client.metadata(Some(&[])).await?.brokers;
    let mut groups = Vec::new();
    for broker in brokers {
        let request = ListGroupsRequest {
            states_filter: states.to_vec(),
            types_filter: types.to_vec(),
            ..ListGroupsRequest::default()
        };
        let response = client.send_to(broker.node_id, request).await?;
        admin::check(response.error_code, None)?;
        groups.extend(response.groups);
    }
    Ok(groups)
}

/// `--list`: the ids of the groups of one type, or with `--state` also in which state each is.
pub(crate) async fn list(
    client: &mut Client,
    options: &Options,
    group_type: &'static str,
    known: &[&'static str],
) -> ToolResult {
    let types = [Str::from(group_type)];
    if let Some(text) = options.get("state") {
        let states = states(text, known)?;
        print_states(&listed(client, &states, &types).await?);
    } else {
        for group in listed(client, &[], &types).await? {
            println!("{}", group.group_id);
        }
    }
    Ok(())
}

/// The groups that `--group` names, in their order, or `--all-groups` of a type.
pub(crate) async fn wanted(
    client: &mut Client,
    options: &Options,
    group_type: &'static str,
) -> ToolResult<Vec<Str>> {
    if options.has("all-groups") {
        let groups = listed(client, &[], &[Str::from(group_type)]).await?;
        return Ok(groups.into_iter().map(|group| group.group_id).collect());
    }
    let named = options.all("group").iter();
    Ok(named.map(|id| Str::from(id.clone())).collect())
}

/// A list of states as `--state` takes it, in the broker's words.
///
/// # Errors
/// When one is not among those that such groups have.
pub(crate) fn states(text: &str, known: &[&'static str]) -> ToolResult<Vec<Str>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let found = text.split(',').map(|value| {
        let value = value.trim();
        known.iter().find(|known| known.eq_ignore_ascii_case(value))
    });
    let found: Option<Vec<Str>> = found.map(|state| state.map(|state| Str::from(*state))).collect();
    found.ok_or_else(|| {
        ToolError::Usage(format!(
            "Invalid state list '{text}'. Valid states are: {}",
            known.join(", ")
        ))
    })
}

/// The columns GROUP and STATE of `--list --state`.
fn print_states(groups: &[ListedGroup]) {
    let width = groups
        .iter()
        .map(|group| group.group_id.len())
        .max()
        .unwrap_or(0)
        .max(15);
    println!("{:<width$} STATE", "GROUP");
    for group in groups {
        println!("{:<width$} {}", &*group.group_id, group.group_state);
    }
}

/// `host:port` of the broker that coordinates a group.
pub(crate) async fn coordinator_address(client: &mut Client, node_id: i32) -> ToolResult<String> {
    let metadata = client.metadata(Some(&[])).await?;
    let broker = metadata.brokers.iter().find(|broker| broker.node_id == node_id);
    Ok(broker.map_or(MISSING.to_owned(), |broker| {
        format!("{}:{}", broker.host, broker.port)
    }))
}

/// Deletes one group.
pub(crate) async fn delete(client: &mut Client, id: &Str) -> ToolResult<Option<Fault>> {
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let request = DeleteGroupsRequest {
        groups_names: vec![id.clone()],
        ..DeleteGroupsRequest::default()
    };
    let response = client.send_to(coordinator, request).await?;
    let codes = response.results.into_iter().map(|result| result.error_code);
    Ok(codes.filter_map(|code| Fault::of(code, None)).next())
}

/// `'one', 'another'`.
pub(crate) fn quoted<'a>(ids: impl IntoIterator<Item = &'a Str>) -> String {
    let quoted: Vec<String> = ids.into_iter().map(|id| format!("'{id}'")).collect();
    quoted.join(", ")
}

/// A committed offset and its leader epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

pub(crate) async fn committed(
    client: &mut Client,
    id: &Str,
) -> ToolResult<BTreeMap<TopicPartition, Committed>> {
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: id.clone(),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let mut found = BTreeMap::new();
    // Version 9 names topics; version 10 has ids, which a person does not ask by.
    let version = client.version_of::<OffsetFetchRequest>(coordinator).await?.min(9);
    let response = client.send_version_to(coordinator, &request, version).await?;
    for group in response.groups {
        admin::check(group.error_code, None)?;
        for topic in group.topics {
            for one in topic.partitions {
                if one.error_code == 0 && one.committed_offset >= 0 {
                    let value = Committed {
                        offset: one.committed_offset,
                        leader_epoch: one.committed_leader_epoch,
                    };
                    found.insert((topic.name.clone(), one.partition_index), value);
                }
            }
        }
    }
    Ok(found)
}

/// Commits offsets of a group without members.
pub(crate) async fn commit(
    client: &mut Client,
    id: &Str,
    plan: &BTreeMap<TopicPartition, i64>,
) -> ToolResult {
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
    let response = client.send_version_to(coordinator, &request, version).await?;
    let topics = response.topics.iter();
    let partitions = topics.flat_map(|topic| topic.partitions.iter().map(move |one| (&topic.name, one)));
    let failed: Vec<String> = partitions
        .filter(|(_, one)| one.error_code != 0)
        .map(|(topic, one)| format!("{topic}-{}", one.partition_index))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(ToolError::Failed(format!(
        "Failed altering group offsets for the following partitions: [{}]",
        failed.join(", ")
    )))
}

/// What became of a wish to delete offsets: the whole of it, and each partition.
pub(crate) struct Deleted {
    pub(crate) fault: Option<Fault>,
    pub(crate) partitions: BTreeMap<TopicPartition, Option<Fault>>,
}

/// Deletes committed offsets of these partitions.
pub(crate) async fn delete_offsets(
    client: &mut Client,
    id: &Str,
    partitions: &BTreeSet<TopicPartition>,
) -> ToolResult<Deleted> {
    let mut topics: BTreeMap<Str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
    for (topic, partition_index) in partitions {
        let partition = OffsetDeleteRequestPartition {
            partition_index: *partition_index,
            ..OffsetDeleteRequestPartition::default()
        };
        topics.entry(topic.clone()).or_default().push(partition);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| OffsetDeleteRequestTopic {
            name,
            partitions,
            ..OffsetDeleteRequestTopic::default()
        })
        .collect();
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let request = OffsetDeleteRequest {
        group_id: id.clone(),
        topics,
        ..OffsetDeleteRequest::default()
    };
    let response = client.send_to(coordinator, request).await?;
    let fault = Fault::of(response.error_code, None);
    let mut results: BTreeMap<TopicPartition, Option<Fault>> = partitions
        .iter()
        .map(|partition| (partition.clone(), fault.clone()))
        .collect();
    for topic in response.topics {
        for one in topic.partitions {
            let fault = fault.clone().or_else(|| Fault::of(one.error_code, None));
            results.insert((topic.name.clone(), one.partition_index), fault);
        }
    }
    Ok(Deleted {
        fault,
        partitions: results,
    })
}

/// Offsets of partitions at a time; partitions that do not exist are left out.
pub(crate) async fn offsets_at(
    client: &mut Client,
    partitions: &BTreeSet<TopicPartition>,
    timestamp: i64,
) -> ToolResult<BTreeMap<TopicPartition, i64>> {
    let names: BTreeSet<Str> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
    let metadata = client
        .metadata(Some(&names.into_iter().collect::<Vec<_>>()))
        .await?;
    let mut of_leader: BTreeMap<i32, BTreeMap<Str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for topic in metadata.topics {
        let Some(name) = topic.name else { continue };
        for one in topic.partitions {
            if partitions.contains(&(name.clone(), one.partition_index)) {
                let partition = ListOffsetsPartition {
                    partition_index: one.partition_index,
                    timestamp,
                    ..ListOffsetsPartition::default()
                };
                of_leader
                    .entry(one.leader_id)
                    .or_default()
                    .entry(name.clone())
                    .or_default()
                    .push(partition);
            }
        }
    }
    let mut found = BTreeMap::new();
    for (leader, topics) in of_leader {
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| ListOffsetsTopic {
                name,
                partitions,
                ..ListOffsetsTopic::default()
            })
            .collect();
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..ListOffsetsRequest::default()
        };
        for topic in client.send_to(leader, request).await?.topics {
            for one in topic.partitions {
                if one.error_code == 0 {
                    found.insert((topic.name.clone(), one.partition_index), one.offset);
                }
            }
        }
    }
    Ok(found)
}

/// `topic`, or `topic:0,1,2`: partitions that exist, or that were named.
pub(crate) async fn partitions_named(
    client: &mut Client,
    topics: &[String],
) -> ToolResult<BTreeSet<TopicPartition>> {
    let mut found = BTreeSet::new();
    for text in topics {
        if let Some((topic, ids)) = text.split_once(':') {
            for id in ids.split(',') {
                let id = id.trim().parse().map_err(|_| {
                    ToolError::Usage(format!(
                        "Invalid partition '{id}' specified in topic arg '{text}''"
                    ))
                })?;
                found.insert((Str::from(topic.to_owned()), id));
            }
            continue;
        }
        let name = Str::from(text.clone());
        for topic in client.metadata(Some(std::slice::from_ref(&name))).await?.topics {
            admin::check(topic.error_code, None)?;
            found.extend(
                topic
                    .partitions
                    .iter()
                    .map(|one| (name.clone(), one.partition_index)),
            );
        }
    }
    Ok(found)
}

/// Refuses partitions that the cluster does not have, or that nobody leads.
pub(crate) async fn check_partitions(
    client: &mut Client,
    partitions: &BTreeSet<TopicPartition>,
) -> ToolResult {
    let names: BTreeSet<Str> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
    let names: Vec<Str> = names.into_iter().collect();
    let mut leaders: BTreeMap<TopicPartition, i32> = BTreeMap::new();
    for topic in client.metadata(Some(&names)).await?.topics {
        if let Some(fault) = Fault::of(topic.error_code, None) {
            return Err(ToolError::Failed(format!(
                "java.util.concurrent.ExecutionException: {}",
                fault.exception()
            )));
        }
        let Some(name) = topic.name else { continue };
        for one in topic.partitions {
            leaders.insert((name.clone(), one.partition_index), one.leader_id);
        }
    }
    let listed = |is_wrong: &dyn Fn(&TopicPartition) -> bool| {
        let wrong = partitions.iter().filter(|one| is_wrong(one));
        let texts: Vec<String> = wrong
            .map(|(topic, partition)| format!("{topic}-{partition}"))
            .collect();
        texts.join(",")
    };
    let missing = listed(&|one| !leaders.contains_key(one));
    if !missing.is_empty() {
        return Err(ToolError::Failed(format!(
            "The partitions \"{missing}\" do not exist"
        )));
    }
    let leaderless = listed(&|one| leaders.get(one).is_some_and(|leader| *leader < 0));
    if !leaderless.is_empty() {
        return Err(ToolError::Failed(format!(
            "The partitions \"{leaderless}\" have no leader"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_may_stand_without_a_value() {
        let arguments = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            with_optional_values(&words, &["--state", "--type"])
        };
        assert_eq!(
            arguments("--list --state --type"),
            ["--list", "--state", "", "--type", ""]
        );
        assert_eq!(arguments("--list --state Empty"), ["--list", "--state", "Empty"]);
    }

    #[test]
    fn a_fault_prints_itself_as_javas_exception_does() {
        let text = |code: ErrorCode| Fault::of(code.code(), None).unwrap().exception();
        let prefix = "org.apache.kafka.common.errors.";
        assert_eq!(
            text(ErrorCode::NonEmptyGroup),
            format!("{prefix}GroupNotEmptyException: The group is not empty.")
        );
        assert_eq!(
            text(ErrorCode::GroupIdNotFound),
            format!("{prefix}GroupIdNotFoundException: The group id does not exist.")
        );
        assert_eq!(class(ErrorCode::InvalidTopicException), "InvalidTopicException");
        assert_eq!(Fault::of(0, None), None);
    }

    #[test]
    fn states_are_known_in_any_case_and_others_are_refused() {
        let known = ["Stable", "Empty"];
        assert_eq!(states("", &known).unwrap(), Vec::<Str>::new());
        assert_eq!(
            states("empty, STABLE", &known).unwrap(),
            ["Empty", "Stable"].map(Str::from)
        );
        assert!(states("Empty,none", &known).is_err());
    }
}
