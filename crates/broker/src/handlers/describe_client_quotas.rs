//! DescribeClientQuotas (key 48, versions 0-1; KIP-546): the quotas of entities that a filter names.
//!
//! Authorisation: DESCRIBE_CONFIGS on the cluster (none yet). Versions differ only in form.

use std::collections::BTreeMap;
use std::sync::Arc;

use milena_protocol::messages::DescribeClientQuotasRequest;
use milena_protocol::messages::describe_client_quotas_request::ComponentData;
use milena_protocol::messages::describe_client_quotas_response::{
    DescribeClientQuotasResponse, EntityData, EntryData, ValueData,
};
use milena_protocol::{ErrorCode, Str};

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::quotas::{CLIENT_ID, Entity, IP, USER};

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let filter = match filter(&request.components) {
        Ok(filter) => filter,
        Err(error) => {
            return DescribeClientQuotasResponse {
                error_code: error.code.code(),
                error_message: error.wire_message(),
                entries: None,
                ..Default::default()
            };
        }
    };
    let fits = |entity: &Entity| {
        let has = |(kind, wanted): (&&str, &Wanted)| match (entity.get(*kind), wanted) {
            (None, _) => false,
            (Some(_), Wanted::Any) => true,
            (Some(name), Wanted::This(wanted)) => name == wanted,
        };
        filter.iter().all(has) && (!request.strict || entity.len() == filter.len())
    };
    let configs = broker.quotas.configs();
    let text = |text: &String| Str::from(text.clone());
    let entries = configs
        .iter()
        .filter(|(entity, _)| fits(entity))
        .map(|(entity, values)| EntryData {
            entity: entity
                .iter()
                .map(|(kind, name)| EntityData {
                    entity_type: text(kind),
                    entity_name: name.as_ref().map(text),
                    ..Default::default()
                })
                .collect(),
            values: values
                .iter()
                .map(|(key, value)| ValueData {
                    key: text(key),
                    value: *value,
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    DescribeClientQuotasResponse {
        entries: Some(entries),
        ..Default::default()
    }
}

/// What the name of an entity has to be.
enum Wanted {
    Any,
    This(Option<String>),
}

/// In Kafka's order and words.
fn filter(components: &[ComponentData]) -> Result<BTreeMap<&str, Wanted>, ApiError> {
    let refuse = |sentence: String| Err(ApiError::invalid_request(sentence));
    let mut filter = BTreeMap::new();
    for component in components {
        let kind = &*component.entity_type;
        if kind.is_empty() {
            return refuse("Invalid empty entity type.".to_owned());
        }
        if filter.contains_key(kind) {
            return refuse(format!(
                "Entity type {kind} cannot appear more than once in the filter."
            ));
        }
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            let sentence = format!("Unsupported entity type {kind}");
            return Err(ApiError::new(ErrorCode::UnsupportedVersion, sentence));
        }
        let wanted = match (component.match_type, &component.r#match) {
            (EXACT, Some(name)) => Wanted::This(Some(name.to_string())),
            (EXACT, None) => {
                return refuse(
                    "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
                );
            }
            (DEFAULT, None) => Wanted::This(None),
            (SPECIFIED, None) => Wanted::Any,
            (DEFAULT, Some(_)) => {
                return refuse(
                    "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.".to_owned(),
                );
            }
            (SPECIFIED, Some(_)) => {
                return refuse(
                    "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.".to_owned(),
                );
            }
            (other, _) => return refuse(format!("Unknown match type {other}")),
        };
        filter.insert(kind, wanted);
    }
    if filter.contains_key(IP) && filter.len() > 1 {
        return refuse(
            "Invalid entity filter component combination. IP filter component should not be used with user or \
             clientId filter component."
                .to_owned(),
        );
    }
    Ok(filter)
}
