//! How the console consumers print a record, as Kafka's `DefaultMessageFormatter` does.

use std::io::{Result, Write};

use crate::{ToolError, ToolResult};

/// What of a record is printed.
#[derive(Debug)]
pub(super) struct Format {
    timestamp: bool,
    partition: bool,
    offset: bool,
    delivery: bool,
    epoch: bool,
    headers: bool,
    key: bool,
    value: bool,
    key_separator: String,
    line_separator: String,
    headers_separator: String,
    null_literal: String,
}

/// A record as it is printed.
#[derive(Debug, Default)]
pub(super) struct Shown<'a> {
    /// `CreateTime` or `LogAppendTime`, and milliseconds.
    pub(super) timestamp: Option<(&'static str, i64)>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// How often a share group has delivered it.
    pub(super) delivery: Option<i16>,
    pub(super) headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl Format {
    pub(super) fn new(properties: &[(String, String)]) -> ToolResult<Self> {
        let mut format = Self {
            timestamp: false,
            partition: false,
            offset: false,
            delivery: false,
            epoch: false,
            headers: false,
            key: false,
            value: true,
            key_separator: "\t".into(),
            line_separator: "\n".into(),
            headers_separator: ",".into(),
            null_literal: "null".into(),
        };
        for (name, value) in properties {
            let truth = value.trim().eq_ignore_ascii_case("true");
            match name.as_str() {
                "print.timestamp" => format.timestamp = truth,
                "print.partition" => format.partition = truth,
                "print.offset" => format.offset = truth,
                "print.delivery" => format.delivery = truth,
                "print.epoch" => format.epoch = truth,
                "print.headers" => format.headers = truth,
                "print.key" => format.key = truth,
                "print.value" => format.value = truth,
                "key.separator" => format.key_separator.clone_from(value),
                "line.separator" => format.line_separator.clone_from(value),
                "headers.separator" => format.headers_separator.clone_from(value),
                "null.literal" => format.null_literal.clone_from(value),
                other => {
                    return Err(ToolError::Usage(format!(
                        "{other} is no property of the message formatter"
                    )));
                }
            }
        }
        Ok(format)
    }

    pub(super) fn write(&self, out: &mut impl Write, record: &Shown<'_>) -> Result<()> {
        let null = self.null_literal.as_bytes();
        let mut columns: Vec<Vec<u8>> = Vec::new();
        if self.timestamp {
            columns.push(match record.timestamp {
                Some((kind, ms)) => format!("{kind}:{ms}").into_bytes(),
                None => b"NO_TIMESTAMP".to_vec(),
            });
        }
        if self.partition {
            columns.push(format!("Partition:{}", record.partition).into_bytes());
        }
        if self.offset {
            columns.push(format!("Offset:{}", record.offset).into_bytes());
        }
        if self.delivery {
            let count = record.delivery.map(|count| count.to_string());
            columns.push(format!("Delivery:{}", count.as_deref().unwrap_or("NOT_PRESENT")).into_bytes());
        }
        if self.epoch {
            // Kafka's console consumers do not hand the leader epoch to the formatter.
            columns.push(b"Epoch:NOT_PRESENT".to_vec());
        }
        if self.headers {
            columns.push(self.headers(record));
        }
        if self.key {
            columns.push(record.key.unwrap_or(null).to_vec());
        }
        if self.value {
            columns.push(record.value.unwrap_or(null).to_vec());
        }
        if columns.is_empty() {
            return Ok(());
        }
        out.write_all(&columns.join(self.key_separator.as_bytes()))?;
        out.write_all(self.line_separator.as_bytes())
    }

    fn headers(&self, record: &Shown<'_>) -> Vec<u8> {
        if record.headers.is_empty() {
            return b"NO_HEADERS".to_vec();
        }
        let texts: Vec<Vec<u8>> = record
            .headers
            .iter()
            .map(|(key, value)| {
                let mut text = key.to_vec();
                text.push(b':');
                text.extend_from_slice(value.unwrap_or(self.null_literal.as_bytes()));
                text
            })
            .collect();
        texts.join(self.headers_separator.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(properties: &[(&str, &str)]) -> String {
        let owned: Vec<_> = properties
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let record = Shown {
            timestamp: Some(("CreateTime", 5)),
            partition: 1,
            offset: 2,
            delivery: Some(3),
            headers: vec![(b"a", Some(b"b")), (b"c", None)],
            key: None,
            value: Some(b"value"),
        };
        let mut out = Vec::new();
        Format::new(&owned).unwrap().write(&mut out, &record).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_its_value_unless_told_otherwise() {
        assert_eq!(printed(&[]), "value\n");
        assert_eq!(printed(&[("print.value", "false")]), "");
    }

    #[test]
    fn columns_stand_in_kafkas_order() {
        let all = [
            "timestamp",
            "partition",
            "offset",
            "delivery",
            "epoch",
            "headers",
            "key",
        ];
        let names: Vec<String> = all.iter().map(|name| format!("print.{name}")).collect();
        let properties: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "true")).collect();
        assert_eq!(
            printed(&properties),
            "CreateTime:5\tPartition:1\tOffset:2\tDelivery:3\tEpoch:NOT_PRESENT\ta:b,c:null\tnull\tvalue\n"
        );
    }
}
