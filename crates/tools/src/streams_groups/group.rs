//! A streams group as the broker describes it, and the topics that its topology names.

use std::collections::{BTreeMap, BTreeSet};

use milena_client::{Client, GROUP_COORDINATOR};
use milena_protocol::Str;
use milena_protocol::messages::streams_group_describe_response::{DescribedGroup, Subtopology, Topology};
use milena_protocol::messages::{DeleteTopicsRequest, StreamsGroupDescribeRequest};
use regex_lite::Regex;

use crate::group_admin::{Committed, Fault, TopicPartition, committed, print_error};
use crate::{ToolError, ToolResult};

/// How long a broker may take to delete topics.
const DELETE_TIMEOUT_MS: i32 = 30_000;

pub(super) struct Group {
    pub(super) coordinator: i32,
    pub(super) described: DescribedGroup,
    pub(super) topology: Topology,
}

/// Describes a group; or tells why it cannot be.
pub(super) async fn describe(client: &mut Client, id: &Str) -> ToolResult<Result<Group, Fault>> {
    let coordinator = client.coordinator(id, GROUP_COORDINATOR).await?;
    let request = StreamsGroupDescribeRequest {
        group_ids: vec![id.clone()],
        ..StreamsGroupDescribeRequest::default()
    };
    let response = client.send_to(coordinator, request).await?;
    let group = response.groups.into_iter().next();
    let mut described =
        group.ok_or_else(|| ToolError::Failed(format!("The broker does not describe group {id}.")))?;
    if let Some(fault) = Fault::of(described.error_code, described.error_message.as_ref()) {
        return Ok(Err(fault));
    }
    let topology = described.topology.take().ok_or_else(|| {
        ToolError::Failed("java.lang.IllegalStateException: Topology information is missing".into())
    })?;
    Ok(Ok(Group {
        coordinator,
        described,
        topology,
    }))
}

/// As [`describe`], where a group that cannot be described ends the command.
pub(super) async fn require(client: &mut Client, id: &Str) -> ToolResult<Group> {
    let group = describe(client, id).await?;
    group.map_err(|fault| {
        ToolError::Failed(format!(
            "java.util.concurrent.ExecutionException: {}",
            fault.exception()
        ))
    })
}

impl Group {
    pub(super) fn subtopologies(&self) -> &[Subtopology] {
        self.topology.subtopologies.as_deref().unwrap_or_default()
    }

    /// The topics that the application is given.
    fn source_topics(&self) -> BTreeSet<&Str> {
        let subtopologies = self.subtopologies().iter();
        subtopologies.flat_map(|one| &one.source_topics).collect()
    }

    /// What the group has committed of the topics that it reads, its own ones among them or not.
    pub(super) async fn committed(
        &self,
        client: &mut Client,
        with_internal: bool,
    ) -> ToolResult<BTreeMap<TopicPartition, Committed>> {
        let mut topics = self.source_topics();
        if with_internal {
            let subtopologies = self.subtopologies().iter();
            let repartitioned = subtopologies.flat_map(|one| &one.repartition_source_topics);
            topics.extend(repartitioned.map(|topic| &topic.name));
        }
        let mut all = committed(client, &self.described.group_id).await?;
        all.retain(|(topic, _), _| topics.contains(topic));
        Ok(all)
    }

    /// The topics that the application made for itself. One whose name does not tell so is left alone, and named.
    pub(super) fn internal_topics(&self) -> Vec<Str> {
        let sources = self.source_topics();
        let subtopologies = self.subtopologies().iter();
        let topics = subtopologies.flat_map(|one| {
            let repartitioned = one.repartition_source_topics.iter();
            repartitioned.chain(&one.state_changelog_topics)
        });
        let mut internal = Vec::new();
        for name in topics
            .map(|topic| &topic.name)
            .filter(|name| !sources.contains(name))
        {
            let id = &self.described.group_id;
            if is_inferred_internal(name, id) {
                internal.push(name.clone());
            } else {
                print_error(&format!(
                    "The internal topic '{name}' is not inferred as internal and thus will not be deleted with the group '{id}'."
                ));
            }
        }
        internal
    }
}

/// Whether a topic's name is one that Kafka Streams gives to an application's own topics.
fn is_inferred_internal(topic: &str, application_id: &str) -> bool {
    const ENDS: [&str; 4] = [
        "-changelog",
        "-repartition",
        "-subscription-registration-topic",
        "-subscription-response-topic",
    ];
    let is_foreign_key_join = |name: &str| {
        Regex::new("^.+-KTABLE-FK-JOIN-SUBSCRIPTION-(REGISTRATION|RESPONSE)-[0-9]+-topic$")
            .is_ok_and(|pattern| pattern.is_match(name))
    };
    let rest = topic.strip_prefix(application_id);
    rest.is_some_and(|rest| rest.starts_with('-'))
        && (ENDS.iter().any(|end| topic.ends_with(end)) || is_foreign_key_join(topic))
}

/// Deletes topics; tells which could not be, and why.
pub(super) async fn delete_topics(client: &mut Client, topics: &[Str]) -> ToolResult<Vec<(Str, Fault)>> {
    let request = DeleteTopicsRequest {
        topic_names: topics.to_vec(),
        timeout_ms: DELETE_TIMEOUT_MS,
        ..DeleteTopicsRequest::default()
    };
    // Version 5 names topics; later ones may have ids.
    let connection = client.bootstrap();
    let version = connection.version_for::<DeleteTopicsRequest>()?.min(5);
    let response = connection.send_version(&request, version).await?;
    let results = response.responses.into_iter();
    Ok(results
        .filter_map(|topic| {
            let fault = Fault::of(topic.error_code, topic.error_message.as_ref())?;
            Some((topic.name.unwrap_or_default(), fault))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_internal_by_the_names_that_kafka_streams_gives() {
        for name in [
            "app-counts-changelog",
            "app-x-repartition",
            "app-x-subscription-response-topic",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-0000000012-topic",
            "app-x-KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-0-topic",
        ] {
            assert!(is_inferred_internal(name, "app"), "{name}");
        }
        for name in [
            "other-counts-changelog",
            "application-changelog",
            "app-lines",
            "app-KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-x-topic",
        ] {
            assert!(!is_inferred_internal(name, "app"), "{name}");
        }
    }
}
