//! Command-line flags in the manner of Kafka's commands: `--name value` or `--name=value`, names may
//! be cut as long as they are unambiguous, `--help` and `--version` everywhere.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use crate::{ToolError, ToolResult};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// What stands for the value in the usage; `None` for a flag without one.
    pub(crate) value: Option<&'static str>,
    pub(crate) help: &'static str,
}

pub(crate) const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        value: None,
        help,
    }
}

pub(crate) const fn valued(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        value: Some(value),
        help,
    }
}

/// A command's flags.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) about: &'static str,
    pub(crate) flags: &'static [Flag],
}

const HELP: Flag = switch("help", "Print usage information.");
const VERSION: Flag = switch("version", "Display Kafka version.");

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct Options {
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Spec {
    /// # Errors
    /// [`ToolError::Usage`] for flags that are not the command's, [`ToolError::Help`] for `--help`.
    pub(crate) fn parse(&self, arguments: &[String]) -> ToolResult<Options> {
        if arguments.is_empty() {
            return Err(ToolError::Usage(self.about.to_owned()));
        }
        let mut options = Options::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let Some(text) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                return Err(ToolError::Usage(format!("{argument} is not a recognized option")));
            };
            let (name, inline) = text
                .split_once('=')
                .map_or((text, None), |(name, value)| (name, Some(value)));
            let flag = self.flag(name)?;
            let values = options.values.entry(flag.name).or_default();
            match (flag.value, inline) {
                (None, None) => {}
                (None, Some(_)) => {
                    return Err(ToolError::Usage(format!(
                        "Option {name} does not take an argument"
                    )));
                }
                (Some(_), Some(value)) => values.push(value.to_owned()),
                (Some(_), None) => {
                    let value = arguments.next();
                    values.push(
                        value
                            .ok_or_else(|| ToolError::Usage(format!("Option {name} requires an argument")))?
                            .clone(),
                    );
                }
            }
        }
        if options.has("help") {
            return Err(ToolError::Help(self.about.to_owned()));
        }
        Ok(options)
    }

    fn flag(&self, name: &str) -> ToolResult<&Flag> {
        let all = || self.flags.iter().chain([&HELP, &VERSION]);
        if let Some(exact) = all().find(|flag| flag.name == name) {
            return Ok(exact);
        }
        let mut cut = all().filter(|flag| flag.name.starts_with(name));
        match (cut.next(), cut.next()) {
            (Some(flag), None) => Ok(flag),
            _ => Err(ToolError::Usage(format!("{name} is not a recognized option"))),
        }
    }

    pub(crate) fn help(&self) -> String {
        let mut text = format!("{:<40} Description\n{:<40} -----------\n", "Option", "------");
        let mut flags: Vec<&Flag> = self.flags.iter().chain([&HELP, &VERSION]).collect();
        flags.sort_by_key(|flag| flag.name);
        for flag in flags {
            let left = match flag.value {
                Some(value) => format!("--{} <{value}>", flag.name),
                None => format!("--{}", flag.name),
            };
            let _ = writeln!(text, "{left:<40} {}", flag.help);
        }
        text
    }
}

impl Options {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value, if the flag was given; the last one if it was given several times.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str)
    }

    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> ToolResult<Option<T>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text
            .trim()
            .parse()
            .map_err(|_| ToolError::Usage(format!("Cannot parse argument '{text}' of option {name}")))?;
        Ok(Some(number))
    }

    /// # Errors
    /// When the flag is missing.
    pub(crate) fn require(&self, name: &str) -> ToolResult<&str> {
        self.get(name)
            .ok_or_else(|| ToolError::Usage(format!("Missing required argument \"[{name}]\"")))
    }

    /// # Errors
    /// When the flag was given together with one that excludes it.
    pub(crate) fn exclude(&self, name: &str, others: &[&str]) -> ToolResult {
        match others.iter().find(|other| self.has(name) && self.has(other)) {
            Some(other) => Err(ToolError::Usage(format!(
                "Option \"[{name}]\" can't be used with option \"[{other}]\""
            ))),
            None => Ok(()),
        }
    }
}

/// Gives a flag that may stand without a value the one that it then means.
pub(crate) fn with_bare_value(arguments: &[String], flag: &str, value: &str) -> Vec<String> {
    let mut out = Vec::with_capacity(arguments.len() + 1);
    for (at, argument) in arguments.iter().enumerate() {
        out.push(argument.clone());
        if argument == flag && arguments.get(at + 1).is_none_or(|next| next.starts_with("--")) {
            out.push(value.to_owned());
        }
    }
    out
}

/// A file of properties, such as `--command-config` names.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn load_properties(path: &str) -> ToolResult<Vec<(String, String)>> {
    let text = fs::read_to_string(path).map_err(|error| ToolError::Failed(format!("{path}: {error}")))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '!']))
        .map(|line| {
            let (name, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
            (name.trim().to_owned(), value.trim().to_owned())
        })
        .collect())
}

/// Says no to what these commands cannot do, instead of going on in the clear.
///
/// # Errors
/// When a property asks for encryption or authentication.
pub(crate) fn refuse_security(properties: &[(String, String)]) -> ToolResult {
    let asks = |(name, value): &&(String, String)| {
        (name == "security.protocol" && !value.eq_ignore_ascii_case("PLAINTEXT"))
            || name.starts_with("ssl.")
            || name.starts_with("sasl.")
    };
    match properties.iter().find(asks) {
        Some((name, value)) => Err(ToolError::Failed(format!(
            "{name}={value}: these commands do not speak TLS or SASL yet; use Kafka's own for this cluster"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        about: "A test.",
        flags: &[
            switch("list", "Lists."),
            valued("topic", "topic", "A topic."),
            valued("topic-id", "id", "An id."),
        ],
    };

    fn parse(arguments: &[&str]) -> ToolResult<Options> {
        SPEC.parse(
            &arguments
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_value_stands_behind_the_flag_or_an_equals_sign() {
        for arguments in [&["--topic", "a=b", "--list"][..], &["--list", "--topic=a=b"][..]] {
            let options = parse(arguments).unwrap();
            assert_eq!(options.get("topic"), Some("a=b"));
            assert!(options.has("list") && !options.has("topic-id"));
        }
    }

    #[test]
    fn a_cut_name_works_while_it_is_unambiguous() {
        assert!(parse(&["--li"]).unwrap().has("list"));
        assert!(parse(&["--topi", "x"]).is_err());
        assert_eq!(parse(&["--topic", "x"]).unwrap().get("topic"), Some("x"));
    }

    #[test]
    fn a_flag_may_stand_without_its_value_where_it_has_one_of_its_own() {
        let given = |arguments: &[&str]| {
            let owned: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            with_bare_value(&owned, "--codec", "gzip").join(" ")
        };
        assert_eq!(given(&["--codec", "--sync"]), "--codec gzip --sync");
        assert_eq!(given(&["--sync", "--codec"]), "--sync --codec gzip");
        assert_eq!(given(&["--codec", "-1"]), "--codec -1");
    }

    #[test]
    fn an_unknown_flag_or_a_missing_value_is_said() {
        assert_eq!(
            parse(&["--what"]).unwrap_err().to_string(),
            "what is not a recognized option"
        );
        assert_eq!(
            parse(&["--topic"]).unwrap_err().to_string(),
            "Option topic requires an argument"
        );
    }
}
