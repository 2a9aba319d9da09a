//! AlterClientQuotas (key 49, versions 0-1; KIP-546): sets and removes the quotas of entities.
//!
//! Authorisation: ALTER_CONFIGS on the cluster (none yet). Forwardable. Versions differ only in form. What is answered is
//! stored and in force.

use std::collections::HashSet;
use std::sync::Arc;

use milena_protocol::Str;
use milena_protocol::messages::AlterClientQuotasRequest;
use milena_protocol::messages::alter_client_quotas_request::EntryData as AskedEntry;
use milena_protocol::messages::alter_client_quotas_response::{
    AlterClientQuotasResponse, EntityData, EntryData,
};

use crate::api_error::ApiError;
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::quotas::{Alteration, Entity, IP, resolved};

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    _context: &RequestContext,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let mut checked = Vec::with_capacity(request.entries.len());
    for entry in &request.entries {
        let entity = entity(entry);
        let refusal = check_host(&entity).await.err();
        checked.push((entry, entity, refusal));
    }
    let mut results: Vec<(&Entity, Option<ApiError>)> = Vec::new();
    let stored = broker.quotas.change(|configs| {
        let mut next = configs.clone();
        let mut changes = Vec::new();
        let mut seen = HashSet::new();
        for (entry, entity, refusal) in &checked {
            let result = match refusal {
                _ if !seen.insert(entity) => Err(ApiError::invalid_request("Ignoring duplicate entity")),
                Some(refusal) => Err(refusal.clone()),
                None => next.alter(entity, &alterations(entry)),
            };
            match result {
                Ok(altered) => {
                    changes.extend(altered);
                    results.push((entity, None));
                }
                Err(error) => results.push((entity, Some(error))),
            }
        }
        (
            next,
            if request.validate_only {
                Vec::new()
            } else {
                changes
            },
        )
    });
    if let Err(error) = stored.await {
        results = checked
            .iter()
            .map(|(_, entity, _)| (entity, Some(error.clone())))
            .collect();
    }
    AlterClientQuotasResponse {
        entries: results
            .into_iter()
            .map(|(entity, error)| answer(entity, error))
            .collect(),
        ..Default::default()
    }
}

fn entity(entry: &AskedEntry) -> Entity {
    entry
        .entity
        .iter()
        .map(|part| {
            let name = part.entity_name.as_ref().map(ToString::to_string);
            (part.entity_type.to_string(), name)
        })
        .collect()
}

fn alterations(entry: &AskedEntry) -> Vec<Alteration<'_>> {
    entry
        .ops
        .iter()
        .map(|op| Alteration {
            key: &op.key,
            value: (!op.remove).then_some(op.value),
        })
        .collect()
}

async fn check_host(entity: &Entity) -> Result<(), ApiError> {
    match entity.get(IP) {
        Some(Some(host)) if !host.is_empty() && resolved(host).await.is_empty() => Err(
            ApiError::invalid_request(format!("{host} is not a valid IP or resolvable host.")),
        ),
        _ => Ok(()),
    }
}

fn answer(entity: &Entity, error: Option<ApiError>) -> EntryData {
    EntryData {
        error_code: error.as_ref().map_or(0, |error| error.code.code()),
        error_message: error.and_then(|error| error.wire_message()),
        entity: entity
            .iter()
            .map(|(kind, name)| EntityData {
                entity_type: Str::from(kind.clone()),
                entity_name: name.clone().map(Str::from),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}
