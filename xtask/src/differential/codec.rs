//! Messages as JSON trees, by Kafka's own definitions: what a case says becomes bytes, what a broker answers becomes a
//! tree to compare.
//!
//! It interprets the definitions and shares no code with the broker's generated types, so that a mistake there is a
//! difference here. A field that a case does not name has its default; one that a version does not have is left out.
//! Byte fields are text where they are UTF-8, otherwise `hex:…`; a batch is written by [`super::batches`].

use super::batches;
use super::schema::{Field, Message, Range, Struct, Type};
use crate::error::{AtPath, Error, Result};
use crate::process::root;
use serde_json::{Map, Number, Value, json};

const TEXT_OF_ZERO_UUID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(crate) fn contains(range: Range, version: i16) -> bool {
    range.min <= version && version <= range.max
}

/// The definition of one message, from the files that the protocol crate is generated from.
pub(super) fn load(name: &str) -> Result<Message> {
    let path = root().join(format!("crates/protocol/schema/wire/{name}.json"));
    Ok(Message::parse(&std::fs::read_to_string(&path).at(&path)?))
}

fn fields<'a>(message: &'a Message, name: &str) -> Result<&'a [Field]> {
    let found = message.structs.iter().find(|one: &&Struct| one.name == name);
    found
        .map(|one| one.fields.as_slice())
        .ok_or_else(|| Error::new(format!("{} has no struct {name}", message.name)))
}

pub(crate) fn encode(message: &Message, version: i16, value: &Value) -> Result<Vec<u8>> {
    let mut writer = Writer {
        message,
        version,
        flexible: contains(message.flexible, version),
        out: Vec::new(),
    };
    writer.structure(&message.name, value)?;
    Ok(writer.out)
}

struct Writer<'a> {
    message: &'a Message,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn structure(&mut self, name: &str, value: &Value) -> Result<()> {
        let message = self.message;
        let fields = fields(message, name)?;
        let given = value
            .as_object()
            .ok_or_else(|| Error::new(format!("{}: {name} is an object, not {value}", message.name)))?;
        if let Some(unknown) = given
            .keys()
            .find(|key| fields.iter().all(|field| field.name != **key))
        {
            return Err(Error::new(format!(
                "{}: {name} has no field {unknown}",
                message.name
            )));
        }
        let mut tagged = Vec::new();
        for field in fields {
            if contains(field.tagged, self.version) {
                if let Some(value) = given.get(&field.name) {
                    tagged.push((field, value));
                }
            } else if contains(field.versions, self.version) {
                let default = default(field, self.version)?;
                self.value(field, &field.ty, given.get(&field.name).unwrap_or(&default))?;
            }
        }
        if self.flexible {
            tagged.sort_by_key(|(field, _)| field.tag);
            write_varint(&mut self.out, tagged.len() as u32);
            for (field, value) in tagged {
                let outer = std::mem::take(&mut self.out);
                self.value(field, &field.ty, value)?;
                let content = std::mem::replace(&mut self.out, outer);
                write_varint(&mut self.out, field.tag);
                write_varint(&mut self.out, content.len() as u32);
                self.out.extend(content);
            }
        }
        Ok(())
    }

    fn value(&mut self, field: &Field, ty: &Type, value: &Value) -> Result<()> {
        let wrong = || Error::new(format!("{}.{} cannot be {value}", self.message.name, field.name));
        match ty {
            Type::Fixed("bool", _) => self.out.push(u8::from(value.as_bool().ok_or_else(wrong)?)),
            Type::Fixed("f64", _) => {
                let number = value.as_f64().ok_or_else(wrong)?;
                self.out.extend(number.to_be_bytes());
            }
            Type::Fixed(_, width) => {
                let number = value.as_i64().ok_or_else(wrong)?.to_be_bytes();
                self.out.extend(number.iter().skip(8 - width));
            }
            Type::Uuid => {
                let id = value.as_str().and_then(uuid_from_text).ok_or_else(wrong)?;
                self.out.extend(id);
            }
            Type::String if value.is_null() => self.length(None, 2),
            Type::String => {
                let text = value.as_str().ok_or_else(wrong)?.to_string();
                self.length(Some(text.len()), 2);
                self.out.extend(text.bytes());
            }
            Type::Bytes | Type::Records if value.is_null() => self.length(None, 4),
            Type::Bytes | Type::Records => {
                let content = bytes_of(value)?.ok_or_else(wrong)?;
                self.length(Some(content.len()), 4);
                self.out.extend(content);
            }
            Type::Array(_) if value.is_null() => self.length(None, 4),
            Type::Array(element) => {
                let elements = value.as_array().ok_or_else(wrong)?;
                self.length(Some(elements.len()), 4);
                for one in elements {
                    self.value(field, element, one)?;
                }
            }
            Type::Struct(name) => {
                let alone = matches!(&field.ty, Type::Struct(_));
                if alone && contains(field.nullable, self.version) {
                    self.out.push(if value.is_null() { 0xff } else { 1 });
                    if value.is_null() {
                        return Ok(());
                    }
                }
                self.structure(name, value)?;
            }
        }
        Ok(())
    }

    /// The length of a string, bytes or array; `None` for null.
    fn length(&mut self, length: Option<usize>, width: usize) {
        if self.flexible {
            write_varint(&mut self.out, length.map_or(0, |length| length as u32 + 1));
        } else {
            let number = length.map_or(-1i64, |length| length as i64).to_be_bytes();
            self.out.extend(number.iter().skip(8 - width));
        }
    }
}

fn bytes_of(value: &Value) -> Result<Option<Vec<u8>>> {
    match value {
        Value::String(text) => match text.strip_prefix("hex:") {
            Some(digits) => from_hex(digits).map(Some),
            None => Ok(Some(text.clone().into_bytes())),
        },
        Value::Array(list) => batches::build(list).map(Some),
        _ => Ok(None),
    }
}

fn default(field: &Field, version: i16) -> Result<Value> {
    let text = field.default.as_deref();
    if text == Some("null") && contains(field.nullable, version) {
        return Ok(Value::Null);
    }
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse::<i64>(),
    };
    Ok(match &field.ty {
        Type::Fixed("bool", _) => Value::Bool(text == Some("true")),
        Type::Fixed("f64", _) => json!(0.0),
        Type::Fixed(..) => Value::from(
            number(text.unwrap_or("0")).map_err(|_| Error::new(format!("the default of {}", field.name)))?,
        ),
        Type::Uuid => Value::from(TEXT_OF_ZERO_UUID),
        Type::String => Value::from(text.unwrap_or_default()),
        Type::Bytes => Value::from(""),
        Type::Records => Value::Null,
        Type::Array(_) => json!([]),
        Type::Struct(_) => json!({}),
    })
}

/// Decodes a whole answer. What is left over is shown as a field of its own, so that it is a difference.
pub(crate) fn decode(message: &Message, version: i16, bytes: &[u8]) -> std::result::Result<Value, String> {
    let mut reader = Reader {
        message,
        version,
        flexible: contains(message.flexible, version),
        rest: bytes,
    };
    let mut value = reader.structure(&message.name)?;
    if !reader.rest.is_empty()
        && let Some(fields) = value.as_object_mut()
    {
        fields.insert("(left over)".into(), Value::from(to_hex(reader.rest)));
    }
    Ok(value)
}

struct Reader<'a> {
    message: &'a Message,
    version: i16,
    flexible: bool,
    rest: &'a [u8],
}

type Decoded<T> = std::result::Result<T, String>;

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| format!("{} bytes are left where {length} are needed", self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, width: usize) -> Decoded<i64> {
        let bytes = self.take(width)?;
        let start = if bytes.first().is_some_and(|first| first & 0x80 != 0) {
            -1
        } else {
            0
        };
        Ok(bytes
            .iter()
            .fold(start, |number, byte| (number << 8) | i64::from(*byte)))
    }

    fn varint(&mut self) -> Decoded<u32> {
        let mut number = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a variable-length number of more than five bytes".into())
    }

    fn length(&mut self, width: usize) -> Decoded<Option<usize>> {
        if self.flexible {
            return Ok((self.varint()? as usize).checked_sub(1));
        }
        Ok(usize::try_from(self.number(width)?).ok())
    }

    fn structure(&mut self, name: &str) -> Decoded<Value> {
        let message = self.message;
        let fields = fields(message, name).map_err(|error| error.to_string())?;
        let mut found = Map::new();
        for field in fields {
            let value = if contains(field.tagged, self.version) {
                default(field, self.version).map_err(|error| error.to_string())?
            } else if contains(field.versions, self.version) {
                self.value(field, &field.ty)
                    .map_err(|why| format!("{}: {why}", field.name))?
            } else {
                continue;
            };
            found.insert(field.name.clone(), value);
        }
        if self.flexible {
            for _ in 0..self.varint()? {
                let (tag, length) = (self.varint()?, self.varint()? as usize);
                let content = self.take(length)?;
                let known = fields
                    .iter()
                    .find(|field| field.tag == tag && contains(field.tagged, self.version));
                match known {
                    Some(field) => {
                        let mut inner = Reader {
                            rest: content,
                            ..*self
                        };
                        found.insert(field.name.clone(), inner.value(field, &field.ty)?);
                    }
                    None => {
                        found.insert(format!("(tag {tag})"), Value::from(to_hex(content)));
                    }
                }
            }
        }
        Ok(Value::Object(found))
    }

    fn value(&mut self, field: &Field, ty: &Type) -> Decoded<Value> {
        Ok(match ty {
            Type::Fixed("bool", _) => Value::Bool(self.number(1)? != 0),
            Type::Fixed("f64", _) => {
                let bits = self.number(8)?;
                Number::from_f64(f64::from_bits(bits as u64)).map_or(Value::Null, Value::Number)
            }
            Type::Fixed("u16", _) => Value::from(self.number(2)? & 0xffff),
            Type::Fixed("u32", _) => Value::from(self.number(4)? & 0xffff_ffff),
            Type::Fixed(_, width) => Value::from(self.number(*width)?),
            Type::Uuid => Value::from(uuid_to_text(self.take(16)?)),
            Type::String => match self.length(2)? {
                Some(length) => Value::from(String::from_utf8_lossy(self.take(length)?)),
                None => Value::Null,
            },
            Type::Bytes => match self.length(4)? {
                Some(length) => Value::from(text_of(self.take(length)?)),
                None => Value::Null,
            },
            Type::Records => match self.length(4)? {
                Some(length) => batches::show(self.take(length)?),
                None => Value::Null,
            },
            Type::Array(element) => match self.length(4)? {
                Some(length) => {
                    let mut elements = Vec::new();
                    for _ in 0..length {
                        elements.push(self.value(field, element)?);
                    }
                    Value::Array(elements)
                }
                None => Value::Null,
            },
            Type::Struct(name) => {
                let alone = matches!(&field.ty, Type::Struct(_));
                if alone && contains(field.nullable, self.version) && self.number(1)? < 0 {
                    Value::Null
                } else {
                    self.structure(name)?
                }
            }
        })
    }
}

/// The request's header and body in one frame without its length.
pub(crate) fn frame(api_key: i16, version: i16, flexible: bool, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    const CLIENT_ID: &str = "differential";
    let mut out = Vec::new();
    out.extend(api_key.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(correlation_id.to_be_bytes());
    out.extend((CLIENT_ID.len() as i16).to_be_bytes());
    out.extend(CLIENT_ID.bytes());
    if flexible {
        out.push(0);
    }
    out.extend(body);
    out
}

pub(super) fn write_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_string(),
        _ => format!("hex:{}", to_hex(bytes)),
    }
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn from_hex(digits: &str) -> Result<Vec<u8>> {
    let wrong = || Error::new(format!("'{digits}' are no hexadecimal digits"));
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let pair = |at| u8::from_str_radix(digits.get(at..at + 2).unwrap_or_default(), 16).map_err(|_| wrong());
    (0..digits.len()).step_by(2).map(pair).collect()
}

/// Kafka's text of a UUID: base64 for URLs, without padding.
fn uuid_to_text(bytes: &[u8]) -> String {
    let number = bytes
        .iter()
        .fold(0u128, |number, byte| (number << 8) | u128::from(*byte));
    // 22 digits of six bits are 132 bits: the last has four bits of nothing.
    let digit = |at: u32| {
        let bits = if at == 21 {
            number << 4
        } else {
            number >> (122 - 6 * at)
        };
        let index = (bits & 63) as usize;
        ALPHABET.get(index).copied().map_or('A', char::from)
    };
    (0..22).map(digit).collect()
}

fn uuid_from_text(text: &str) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut number = 0u128;
    for (at, byte) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|known| *known == byte)? as u128;
        number = if at == 21 {
            (number << 2) | (digit >> 4)
        } else {
            (number << 6) | digit
        };
    }
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_survives_its_text() {
        let id: [u8; 16] = std::array::from_fn(|at| (at * 37 + 200) as u8);
        assert_eq!(uuid_from_text(&uuid_to_text(&id)), Some(id));
        assert_eq!(uuid_to_text(&[0; 16]), TEXT_OF_ZERO_UUID);
        assert_eq!(uuid_to_text(&[0xff; 16]), "_____________________w");
    }

    #[test]
    fn what_was_written_is_read_again_in_plain_and_in_flexible_versions() {
        let message = load("CreateTopicsRequest").unwrap();
        let topic = json!({"Name": "t", "NumPartitions": 3, "ReplicationFactor": -1, "Assignments": [],
            "Configs": [{"Name": "a", "Value": null}]});
        let request = json!({"Topics": [topic], "timeoutMs": 5, "validateOnly": true});
        for version in [2, 5, 7] {
            let bytes = encode(&message, version, &request).unwrap();
            assert_eq!(decode(&message, version, &bytes).unwrap(), request);
        }
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let message = load("MetadataRequest").unwrap();
        assert!(encode(&message, 1, &json!({"Topic": []})).is_err());
    }

    #[test]
    fn bytes_behind_an_answer_are_shown() {
        let message = load("HeartbeatResponse").unwrap();
        let answer = decode(&message, 0, &[0, 27, 9]).unwrap();
        assert_eq!(answer, json!({"ErrorCode": 27, "(left over)": "09"}));
    }
}
