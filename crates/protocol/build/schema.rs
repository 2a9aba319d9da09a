//! Reads the message definitions: JSON as Kafka publishes it, `//` comment lines allowed.

use serde_json::Value;

/// Versions `min..=max`; `max == i16::MAX` for an open end, `min > max` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Range {
    pub(crate) const NONE: Self = Self { min: 0, max: -1 };

    pub(crate) fn parse(text: &str) -> Self {
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("bad version {text}"));
        if text == "none" {
            Self::NONE
        } else if let Some(min) = text.strip_suffix('+') {
            Self {
                min: number(min),
                max: i16::MAX,
            }
        } else if let Some((min, max)) = text.split_once('-') {
            Self {
                min: number(min),
                max: number(max),
            }
        } else {
            Self {
                min: number(text),
                max: number(text),
            }
        }
    }

    pub(crate) fn is_none(self) -> bool {
        self.min > self.max
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            min: self.min.max(other.min),
            max: self.max.min(other.max),
        }
    }

    pub(crate) fn covers(self, other: Self) -> bool {
        other.is_none() || (self.min <= other.min && self.max >= other.max)
    }

    /// The condition on `version`, given that it is within `known`; `None` if always true.
    pub(crate) fn condition(self, known: Self) -> Option<String> {
        let low = self.min > known.min;
        let high = self.max < known.max;
        if self.is_none() || self.and(known).is_none() {
            Some("false".into())
        } else if low && high && self.min == self.max {
            Some(format!("version == {}", self.min))
        } else if low && high {
            Some(format!("({}..={}).contains(&version)", self.min, self.max))
        } else if low {
            Some(format!("version >= {}", self.min))
        } else if high {
            Some(format!("version <= {}", self.max))
        } else {
            None
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    /// A fixed-size type: Rust's name, the reader's and writer's method, bytes.
    Fixed(&'static str, usize),
    Uuid,
    String,
    Bytes,
    /// Of an answer: bytes, or a range of a file.
    Records,
    Struct(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(text: &str) -> Self {
        if let Some(element) = text.strip_prefix("[]") {
            return Self::Array(Box::new(Self::parse(element)));
        }
        match text {
            "bool" => Self::Fixed("bool", 1),
            "int8" => Self::Fixed("i8", 1),
            "int16" => Self::Fixed("i16", 2),
            "uint16" => Self::Fixed("u16", 2),
            "int32" => Self::Fixed("i32", 4),
            "uint32" => Self::Fixed("u32", 4),
            "int64" => Self::Fixed("i64", 8),
            "float64" => Self::Fixed("f64", 8),
            "uuid" => Self::Uuid,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            name => Self::Struct(name.to_owned()),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) versions: Range,
    pub(crate) nullable: Range,
    pub(crate) tagged: Range,
    pub(crate) tag: u32,
    pub(crate) default: Option<String>,
    pub(crate) ignorable: bool,
    /// `flexibleVersions: none` on the field itself (the client id of the request header).
    pub(crate) never_compact: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
    /// Versions of the message in which the struct can occur.
    pub(crate) versions: Range,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) api_key: Option<i16>,
    pub(crate) for_brokers: bool,
    pub(crate) valid: Range,
    pub(crate) flexible: Range,
    /// The message itself is the first.
    pub(crate) structs: Vec<Struct>,
}

impl Message {
    pub(crate) fn parse(text: &str) -> Self {
        let json: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        let root: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in {json}"));
        let name = string(&root, "name").expect("a message has a name");
        let valid = Range::parse(&string(&root, "validVersions").expect("validVersions"));
        let flexible = Range::parse(&string(&root, "flexibleVersions").unwrap_or_else(|| "none".into()));
        let kind = string(&root, "type").expect("type");
        let mut structs = Vec::new();
        collect(&root, &name, valid, &mut structs);
        for common in root["commonStructs"].as_array().into_iter().flatten() {
            let name = string(common, "name").expect("a struct has a name");
            let versions = Range::parse(&string(common, "versions").expect("versions"));
            collect(common, &name, versions.and(valid), &mut structs);
        }
        if kind != "response" {
            // Only what a broker answers can be in a file.
            let fields = structs.iter_mut().flat_map(|item: &mut Struct| &mut item.fields);
            for field in fields.filter(|field| field.ty == Type::Records) {
                field.ty = Type::Bytes;
            }
        }
        let listeners = root["listeners"].as_array();
        Self {
            name,
            kind,
            api_key: root["apiKey"].as_i64().map(|key| key as i16),
            for_brokers: listeners.is_some_and(|all| all.iter().any(|one| one == "broker")),
            valid,
            flexible,
            structs,
        }
    }
}

fn string(value: &Value, key: &str) -> Option<String> {
    match &value[key] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Adds the struct and, after it, the structs nested in its fields.
fn collect(value: &Value, name: &str, versions: Range, into: &mut Vec<Struct>) {
    let at = into.len();
    into.push(Struct {
        name: name.to_owned(),
        fields: Vec::new(),
        versions,
    });
    let mut fields = Vec::new();
    for json in value["fields"].as_array().into_iter().flatten() {
        let range = |key| string(json, key).map_or(Range::NONE, |text| Range::parse(&text));
        let ty = Type::parse(&string(json, "type").expect("type"));
        let tagged = range("taggedVersions");
        let own = if json["versions"].is_null() {
            tagged
        } else {
            range("versions")
        };
        if json["fields"].is_array() {
            let mut inner = &ty;
            while let Type::Array(element) = inner {
                inner = element;
            }
            let Type::Struct(nested) = inner else {
                panic!("fields of {name} in no struct")
            };
            collect(json, nested, own.and(versions), into);
        }
        fields.push(Field {
            name: string(json, "name").expect("name"),
            ty,
            versions: own,
            nullable: range("nullableVersions"),
            tagged,
            tag: json["tag"].as_u64().unwrap_or(0) as u32,
            default: string(json, "default"),
            ignorable: json["ignorable"].as_bool().unwrap_or(false)
                || json["ignorable"].as_str() == Some("true"),
            never_compact: json["flexibleVersions"].as_str() == Some("none"),
        });
    }
    into[at].fields = fields;
}
