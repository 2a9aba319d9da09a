//! Generates the wire types from the message definitions in `schema/`.

#![allow(clippy::expect_used)]

#[path = "build/emit.rs"]
mod emit;
#[path = "build/schema.rs"]
mod schema;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use schema::Message;

const PRELUDE: &str = "use bytes::Bytes;\nuse crate::message::*;\nuse crate::{Chunk, Str, Uuid};\n";

fn main() {
    println!("cargo::rerun-if-changed=schema");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let out = Path::new(&out);

    let wire: Vec<Message> = read("schema/wire");
    let mut for_brokers: Vec<&Message> = wire
        .iter()
        .filter(|one| one.kind == "request" && one.for_brokers)
        .collect();
    for_brokers.sort_by_key(|one| one.api_key);
    let mut messages: Vec<&Message> = wire.iter().filter(|one| one.kind == "header").collect();
    for request in &for_brokers {
        messages.push(request);
        messages.push(response(&wire, request));
    }
    fs::write(
        out.join("messages.rs"),
        modules(&messages, "for_each_message", "messages"),
    )
    .expect("write");

    let stored = read("schema/records");
    fs::write(
        out.join("stored.rs"),
        modules(&stored.iter().collect::<Vec<_>>(), "for_each_stored", "stored"),
    )
    .expect("write");

    let mut apis = api_keys(&for_brokers);
    for request in &for_brokers {
        let base = base_name(request);
        let _ = writeln!(
            apis,
            "impl Request for crate::messages::{base}Request {{ const KEY: ApiKey = ApiKey::{base}; \
             type Response = crate::messages::{base}Response; }}"
        );
    }
    fs::write(out.join("api_key.rs"), apis).expect("write");
    fs::write(out.join("error_code.rs"), error_codes()).expect("write");
}

fn base_name(request: &Message) -> &str {
    request
        .name
        .strip_suffix("Request")
        .expect("a request's name ends so")
}

fn response<'a>(all: &'a [Message], request: &Message) -> &'a Message {
    let name = format!("{}Response", base_name(request));
    all.iter()
        .find(|one| one.name == name)
        .expect("every request has a response")
}

/// All definitions below a folder, in the order of their names.
fn read(folder: &str) -> Vec<Message> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the schema is part of the crate") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            for message in read(path.to_str().expect("utf-8")) {
                found.insert(message.name.clone(), message);
            }
        } else {
            let message = Message::parse(&fs::read_to_string(&path).expect("readable"));
            found.insert(message.name.clone(), message);
        }
    }
    found.into_values().collect()
}

/// A module for each message, their top structs beside them, and a macro that lists them all.
fn modules(messages: &[&Message], list: &str, parent: &str) -> String {
    let mut out = String::new();
    for message in messages {
        let module = emit::snake(&message.name);
        let _ = writeln!(out, "pub mod {module} {{\n{PRELUDE}{}}}", emit::message(message));
        let _ = writeln!(out, "pub use {module}::{};", message.name);
    }
    let _ = writeln!(
        out,
        "/// Calls the macro once for each message type.\n#[macro_export]\nmacro_rules! {list} {{ ($call:ident) => {{"
    );
    for message in messages {
        let _ = writeln!(out, "$call!($crate::{parent}::{});", message.name);
    }
    out.push_str("} }\n");
    out
}

fn table(path: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).expect("the schema is part of the crate");
    text.lines()
        .skip(1)
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

fn api_keys(requests: &[&Message]) -> String {
    let apis = table("schema/apis.tsv");
    let stable = |key: i16| apis.iter().find(|row| row[0] == key.to_string()).expect("listed")[4].clone();
    let each = |out: &mut String, line: &dyn Fn(&str, &Message) -> String| {
        for request in requests {
            let _ = writeln!(out, "{}", line(base_name(request), request));
        }
    };
    let mut out = String::from(
        "/// The APIs that a client may call on a broker.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    each(&mut out, &|name, m| {
        format!("{name} = {},", m.api_key.expect("a request has a key"))
    });
    out.push_str("}\nimpl ApiKey {\n/// All of them, in the order of their numbers.\npub const ALL: &'static [ApiKey] = &[\n");
    each(&mut out, &|name, _| format!("Self::{name},"));
    out.push_str("];\n#[must_use]\npub const fn from_code(code: i16) -> Option<Self> { match code {\n");
    each(&mut out, &|name, m| {
        format!("{} => Some(Self::{name}),", m.api_key.expect("a key"))
    });
    out.push_str("_ => None } }\n#[must_use]\npub const fn name(self) -> &'static str { match self {\n");
    each(&mut out, &|name, _| format!("Self::{name} => \"{name}\","));
    out.push_str("} }\n/// Every version that is defined.\n#[must_use]\npub const fn versions(self) -> std::ops::RangeInclusive<i16> { match self {\n");
    each(&mut out, &|name, m| {
        format!("Self::{name} => {}..={},", m.valid.min, m.valid.max)
    });
    out.push_str("} }\n/// The versions that a release advertises: without one that is still being developed.\n#[must_use]\npub const fn stable_versions(self) -> std::ops::RangeInclusive<i16> { match self {\n");
    each(&mut out, &|name, m| {
        format!(
            "Self::{name} => {}..={},",
            m.valid.min,
            stable(m.api_key.expect("a key"))
        )
    });
    out.push_str("} }\n/// Whether a request of this version has the flexible header (KIP-482).\n#[must_use]\npub const fn is_flexible(self, version: i16) -> bool { match self {\n");
    each(&mut out, &|name, m| {
        if m.flexible.is_none() {
            format!("Self::{name} => false,")
        } else {
            format!("Self::{name} => version >= {},", m.flexible.min)
        }
    });
    out.push_str("} }\n}\n");
    out
}

fn error_codes() -> String {
    let rows = table("schema/error-codes.tsv");
    let camel = |name: &str| -> String {
        name.split('_')
            .map(|word| format!("{}{}", &word[..1], word[1..].to_ascii_lowercase()))
            .collect()
    };
    let mut out = String::from(
        "/// Kafka's error codes.\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]\n\
         #[repr(i16)]\npub enum ErrorCode {\n",
    );
    for row in &rows {
        let _ = writeln!(out, "{} = {},", camel(&row[1]), row[0]);
    }
    out.push_str("}\nimpl ErrorCode {\npub const ALL: &'static [ErrorCode] = &[\n");
    for row in &rows {
        let _ = writeln!(out, "Self::{},", camel(&row[1]));
    }
    out.push_str("];\n/// A code that is not known counts as UNKNOWN_SERVER_ERROR, as in Kafka's clients.\n#[must_use]\npub const fn from_code(code: i16) -> Self { match code {\n");
    for row in rows.iter().filter(|row| row[0] != "-1") {
        let _ = writeln!(out, "{} => Self::{},", row[0], camel(&row[1]));
    }
    out.push_str("_ => Self::UnknownServerError } }\n#[must_use]\npub const fn name(self) -> &'static str { match self {\n");
    for row in &rows {
        let _ = writeln!(out, "Self::{} => \"{}\",", camel(&row[1]), row[1]);
    }
    out.push_str("} }\n/// Whether a client may try the same request again.\n#[must_use]\npub const fn is_retriable(self) -> bool { matches!(self,\n");
    let retriable: Vec<String> = rows
        .iter()
        .filter(|row| row[2] == "true")
        .map(|row| format!("Self::{}", camel(&row[1])))
        .collect();
    let _ = writeln!(out, "{}) }}\n}}", retriable.join(" | "));
    out
}
