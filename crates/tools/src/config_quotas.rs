//! `kafka-configs` of users, clients and addresses: quotas, which have APIs of their own (KIP-546).

use std::collections::BTreeMap;

use milena_client::Client;
use milena_protocol::Str;
use milena_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use milena_protocol::messages::describe_client_quotas_request::ComponentData;
use milena_protocol::messages::{AlterClientQuotasRequest, DescribeClientQuotasRequest};

use crate::admin;
use crate::config_arguments::{added, deleted, names, types};
use crate::options::Options;
use crate::{ToolError, ToolResult};

/// A kind of entity: as the command has it, as the APIs have it, and as it is shown.
struct Kind {
    plural: &'static str,
    name: &'static str,
    shown: &'static str,
}

/// In the order in which they are shown.
const KINDS: [Kind; 3] = [
    Kind {
        plural: "users",
        name: "user",
        shown: "user-principal",
    },
    Kind {
        plural: "clients",
        name: "client-id",
        shown: "client-id",
    },
    Kind {
        plural: "ips",
        name: "ip",
        shown: "ip",
    },
];
const OF_CLIENTS: [&str; 4] = [
    "producer_byte_rate",
    "consumer_byte_rate",
    "request_percentage",
    "controller_mutation_rate",
];
const OF_ADDRESSES: [&str; 1] = ["connection_creation_rate"];

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const SPECIFIED: i8 = 2;

/// Whether the arguments are about quotas.
pub(crate) fn are_meant(options: &Options) -> bool {
    types(options)
        .iter()
        .any(|kind| KINDS.iter().any(|known| known.plural == *kind))
}

/// Kinds with the names that were given; empty for the defaults.
fn entity(options: &Options) -> ToolResult<Vec<(&'static Kind, Option<&str>)>> {
    let mut names = names(options).into_iter();
    let kind = |plural: &str| {
        KINDS
            .iter()
            .find(|kind| kind.plural == plural)
            .ok_or_else(|| ToolError::Failed(format!("Unexpected entity type: {plural}")))
    };
    types(options)
        .into_iter()
        .map(|plural| Ok((kind(plural)?, names.next())))
        .collect()
}

pub(crate) async fn execute(client: &mut Client, options: &Options) -> ToolResult {
    let entity = entity(options)?;
    if options.has("describe") {
        for (found, quotas) in described(client, &entity).await? {
            let of: Vec<String> = KINDS
                .iter()
                .filter_map(|kind| Some((kind, found.get(kind.name)?)))
                .map(|(kind, name)| match name {
                    Some(name) => format!("{} '{name}'", kind.shown),
                    None => format!("the default {}", kind.shown),
                })
                .collect();
            let quotas: Vec<String> = quotas
                .iter()
                .map(|(quota, value)| format!("{quota}={}", as_java(*value)))
                .collect();
            println!("Quota configs for {} are {}", of.join(", "), quotas.join(", "));
        }
        return Ok(());
    }
    alter(client, &entity, options).await
}

type Found = (BTreeMap<String, Option<String>>, BTreeMap<String, f64>);

/// The quotas of these entities alone: of those that are named, or of all of their kinds.
async fn described(client: &mut Client, entity: &[(&Kind, Option<&str>)]) -> ToolResult<Vec<Found>> {
    let component = |(kind, name): &(&Kind, Option<&str>)| ComponentData {
        entity_type: Str::from(kind.name),
        match_type: match name {
            None => SPECIFIED,
            Some("") => DEFAULT,
            Some(_) => EXACT,
        },
        r#match: name
            .filter(|name| !name.is_empty())
            .map(|name| Str::from(name.to_owned())),
        ..ComponentData::default()
    };
    let request = DescribeClientQuotasRequest {
        components: entity.iter().map(component).collect(),
        strict: true,
        ..DescribeClientQuotasRequest::default()
    };
    let response = client.send(request).await?;
    admin::check(response.error_code, response.error_message.as_ref())?;
    let entries = response.entries.unwrap_or_default().into_iter().map(|entry| {
        let parts = entry.entity.into_iter().map(|part| {
            let name = part.entity_name.map(|name| name.to_string());
            (part.entity_type.to_string(), name)
        });
        let values = entry
            .values
            .into_iter()
            .map(|value| (value.key.to_string(), value.value));
        (parts.collect(), values.collect())
    });
    Ok(entries.collect())
}

async fn alter(
    client: &mut Client,
    entity: &[(&'static Kind, Option<&str>)],
    options: &Options,
) -> ToolResult {
    let added = added(options)?;
    let deleted: Vec<&str> = deleted(options).collect();
    check_names(entity, &added, &deleted)?;
    let old = described(client, entity).await?.pop().unwrap_or_default().1;
    let unknown: Vec<&str> = deleted
        .iter()
        .copied()
        .filter(|name| !old.contains_key(*name))
        .collect();
    if !unknown.is_empty() {
        return Err(ToolError::Refused(format!(
            "Invalid config(s): {}",
            unknown.join(",")
        )));
    }
    let mut ops = Vec::new();
    for (key, value) in &added {
        let value = value.trim().parse().map_err(|_| {
            ToolError::Refused(format!(
                "Cannot parse quota configuration value for {key}: {value}"
            ))
        })?;
        ops.push(OpData {
            key: Str::from(key.clone()),
            value,
            ..OpData::default()
        });
    }
    ops.extend(deleted.iter().map(|key| OpData {
        key: Str::from((*key).to_owned()),
        remove: true,
        ..OpData::default()
    }));
    let part = |(kind, name): &(&Kind, Option<&str>)| EntityData {
        entity_type: Str::from(kind.name),
        entity_name: name
            .filter(|name| !name.is_empty())
            .map(|name| Str::from(name.to_owned())),
        ..EntityData::default()
    };
    let request = AlterClientQuotasRequest {
        entries: vec![EntryData {
            entity: entity.iter().map(part).collect(),
            ops,
            ..EntryData::default()
        }],
        ..AlterClientQuotasRequest::default()
    };
    for result in client.send(request).await?.entries {
        admin::check(result.error_code, result.error_message.as_ref())?;
    }
    if let Some((kind, name)) = entity.first() {
        match name.unwrap_or_default() {
            "" => println!(
                "Completed updating default config for {} in the cluster.",
                kind.plural
            ),
            name => println!(
                "Completed updating config for {} {name}.",
                kind.plural.trim_end_matches('s')
            ),
        }
    }
    Ok(())
}

/// As Java writes a double: large and small ones with an exponent.
fn as_java(value: f64) -> String {
    if value == 0.0 || (1e-3..1e7).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// Kafka's command refuses what is no quota of the kind before it asks.
fn check_names(
    entity: &[(&'static Kind, Option<&str>)],
    added: &BTreeMap<String, String>,
    deleted: &[&str],
) -> ToolResult {
    let of = |plural| entity.iter().any(|(kind, _)| kind.plural == plural);
    let (known, what, kind): (&[&str], _, _) = if of("ips") {
        (&OF_ADDRESSES, "connection quota", "ips")
    } else if of("clients") {
        (&OF_CLIENTS, "quota", "clients")
    } else {
        (&OF_CLIENTS, "quota and SCRAM credential", "users")
    };
    let unknown = |name: &str| !known.contains(&name);
    let added: Vec<&str> = added
        .keys()
        .map(String::as_str)
        .filter(|name| unknown(name))
        .collect();
    let deleted: Vec<&str> = deleted.iter().copied().filter(|name| unknown(name)).collect();
    if added
        .iter()
        .chain(&deleted)
        .any(|name| name.starts_with("SCRAM-"))
        && kind == "users"
    {
        return Err(ToolError::Refused(
            "Credentials of users are not supported: Milena does not authenticate clients yet.".into(),
        ));
    }
    for (names, done) in [(added, "added"), (deleted, "deleted")] {
        if !names.is_empty() {
            return Err(ToolError::Refused(format!(
                "Only {what} configs can be {done} for '{kind}' using --bootstrap-server. Unexpected config names: {}",
                names.join(",")
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        for (value, text) in [
            (1_000.0, "1000.0"),
            (12.5, "12.5"),
            (9_999_999.0, "9999999.0"),
            (10_000_000.0, "1.0E7"),
            (10_485_760.0, "1.048576E7"),
            (0.000_5, "5.0E-4"),
        ] {
            assert_eq!(as_java(value), text);
        }
    }
}
