//! What several commands ask of a cluster.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use milena_client::{Client, Options as ClientOptions};
use milena_protocol::messages::DescribeConfigsRequest;
use milena_protocol::messages::describe_configs_request::DescribeConfigsResource;
use milena_protocol::messages::describe_configs_response::DescribeConfigsResult;
use milena_protocol::messages::metadata_response::MetadataResponseTopic;
use milena_protocol::{ErrorCode, Str, Uuid};
use regex_lite::Regex;

use crate::options::{Options, load_properties, refuse_security};
use crate::{ToolError, ToolResult};

/// Kinds of resources that have configs.
pub(crate) const TOPIC_RESOURCE: i8 = 2;

/// Connects as `--bootstrap-server` (or `--bootstrap-controller`, of commands that have it) and `--command-config` say.
pub(crate) async fn connect(options: &Options, client_id: &'static str) -> ToolResult<Client> {
    connect_within(options, client_id, None).await
}

/// As [`connect`], with a time for each request that goes before the one of the properties.
pub(crate) async fn connect_within(
    options: &Options,
    client_id: &'static str,
    timeout_ms: Option<u64>,
) -> ToolResult<Client> {
    let bootstrap = match options.get("bootstrap-controller") {
        Some(controllers) => controllers,
        None => options.require("bootstrap-server")?,
    };
    let properties = match options.get("command-config") {
        Some(path) => load_properties(path)?,
        None => Vec::new(),
    };
    refuse_security(&properties)?;
    let find = |name: &str| {
        properties
            .iter()
            .rev()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.clone())
    };
    let timeout_ms = timeout_ms
        .or_else(|| find("request.timeout.ms").and_then(|text| text.parse().ok()))
        .unwrap_or(30_000);
    let client_options = ClientOptions {
        client_id: find("client.id").map_or(Str::from(client_id), Str::from),
        timeout: Duration::from_millis(timeout_ms),
    };
    Ok(Client::connect(bootstrap, client_options).await?)
}

/// The broker's error, as Java's exceptions word it where it sends no message.
pub(crate) fn check(code: i16, message: Option<&Str>) -> ToolResult {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(ClientErrorText::of(code, message).into()),
    }
}

struct ClientErrorText;

impl ClientErrorText {
    fn of(code: ErrorCode, message: Option<&Str>) -> milena_client::ClientError {
        let text = message
            .map(ToString::to_string)
            .or_else(|| default_message(code).map(str::to_owned));
        milena_client::ClientError::Broker(code, text)
    }
}

/// Kafka's own words for the errors that these commands meet.
pub(crate) fn default_message(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        ErrorCode::TopicAlreadyExists => "Topic with this name already exists.",
        ErrorCode::InvalidTopicException => {
            "The request attempted to perform an operation on an invalid topic."
        }
        ErrorCode::UnknownTopicId => "This server does not host this topic ID.",
        ErrorCode::CoordinatorNotAvailable => "The coordinator is not available.",
        ErrorCode::GroupIdNotFound => "The group id does not exist.",
        ErrorCode::InvalidGroupId => "The group id is invalid.",
        ErrorCode::GroupSubscribedToTopic => {
            "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it."
        }
        ErrorCode::NonEmptyGroup => "The group is not empty.",
        ErrorCode::UnsupportedVersion => "The version of API is not supported.",
        _ => return None,
    })
}

/// Names that a list of patterns allows, as Kafka's `IncludeList` does: commas part alternatives,
/// the whole name must match.
#[derive(Debug)]
pub(crate) struct TopicFilter {
    pattern: Regex,
}

impl TopicFilter {
    pub(crate) fn new(text: &str) -> ToolResult<Self> {
        let alternatives = text.trim().replace(',', "|").replace(' ', "");
        let trimmed = alternatives.trim_matches(['"', '\'']);
        let pattern = Regex::new(&format!("^(?:{trimmed})$"))
            .map_err(|_| ToolError::Failed(format!("{text} is an invalid regex.")))?;
        Ok(Self { pattern })
    }

    pub(crate) fn allows(&self, name: &str) -> bool {
        self.pattern.is_match(name)
    }
}

/// All topics by name, without internal ones if so wished, that the filter allows.
pub(crate) async fn topics(
    client: &mut Client,
    filter: Option<&TopicFilter>,
    exclude_internal: bool,
) -> ToolResult<BTreeMap<String, MetadataResponseTopic>> {
    let metadata = client.metadata(None).await?;
    Ok(metadata
        .topics
        .into_iter()
        .filter(|topic| !(exclude_internal && topic.is_internal))
        .filter_map(|topic| Some((topic.name.as_ref()?.to_string(), topic)))
        .filter(|(name, _)| filter.is_none_or(|filter| filter.allows(name)))
        .collect())
}

/// Configs of several resources of one type.
pub(crate) async fn describe_configs(
    client: &mut Client,
    resource_type: i8,
    names: impl IntoIterator<Item = String>,
    include_synonyms: bool,
) -> ToolResult<Vec<DescribeConfigsResult>> {
    let resources: Vec<DescribeConfigsResource> = names
        .into_iter()
        .map(|name| DescribeConfigsResource {
            resource_type,
            resource_name: Str::from(name),
            configuration_keys: None,
            ..DescribeConfigsResource::default()
        })
        .collect();
    let request = DescribeConfigsRequest {
        resources,
        include_synonyms,
        ..DescribeConfigsRequest::default()
    };
    let response = client.send(request).await?;
    for result in &response.results {
        check(result.error_code, result.error_message.as_ref())?;
    }
    Ok(response.results)
}

/// A random id that, like Java's, does not begin with a dash, as a flag does.
pub(crate) fn random_uuid() -> Uuid {
    let mut bytes = [0; 16];
    for half in bytes.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_be_bytes());
    }
    bytes[0] &= 0x7f;
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_whole_names_of_any_alternative() {
        let filter = TopicFilter::new("ml-.*, raw").unwrap();
        assert!(filter.allows("ml-events") && filter.allows("raw"));
        assert!(!filter.allows("raw-events") && !filter.allows("xml-"));
        assert!(TopicFilter::new("(").is_err());
    }

    #[test]
    fn a_random_id_is_another_each_time_and_no_flag() {
        let (one, other) = (random_uuid(), random_uuid());
        assert_ne!(one, other);
        assert!(!one.to_string().starts_with('-'));
    }
}
