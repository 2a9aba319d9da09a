//! The console producer and consumer, on librdkafka, as full clients are others' work, and the console share consumer,
//! which librdkafka has no client for.

mod acknowledge;
pub(crate) mod consumer;
mod format;
pub(crate) mod producer;
pub(crate) mod share_consumer;
mod share_member;

use rdkafka::ClientConfig;

use crate::options::{Options, load_properties, refuse_security};
use crate::{ToolError, ToolResult};

/// `name=value` pairs of a flag that may stand several times; commas part pairs only where the
/// command says so.
fn pairs(options: &Options, flags: &[&str]) -> ToolResult<Vec<(String, String)>> {
    let mut all = Vec::new();
    for flag in flags {
        for text in options.all(flag) {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                ToolError::Usage(format!(
                    "requirement failed: Invalid property '{text}': write name=value"
                ))
            })?;
            all.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(all)
}

/// Client properties from files and flags, the latter winning.
pub(crate) fn client_properties(
    options: &Options,
    files: &[&str],
    flags: &[&str],
) -> ToolResult<Vec<(String, String)>> {
    let mut properties = Vec::new();
    for file in files {
        if let Some(path) = options.get(file) {
            properties.extend(load_properties(path)?);
        }
    }
    properties.extend(pairs(options, flags)?);
    refuse_security(&properties)?;
    Ok(properties)
}

/// Java's clients have these, librdkafka has no use for them: classes, and sizes of Java's buffers.
pub(crate) fn is_java_only(name: &str) -> bool {
    name.ends_with("serializer")
        || matches!(name, "buffer.memory" | "max.block.ms" | "metrics.recording.level")
}

pub(crate) fn apply(config: &mut ClientConfig, properties: &[(String, String)]) {
    for (name, value) in properties {
        if is_java_only(name) {
            eprintln!("{name} has no meaning for this command and is left out.");
        } else {
            config.set(name, value);
        }
    }
}
