//! Writes the Rust types of one message, with their decoders and encoders for every version.

use std::fmt::Write;

use crate::schema::{Field, Message, Range, Struct, Type};

/// `TopicIdPartition` -> `topic_id_partition`; a run of capitals counts as one word.
pub(crate) fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        if c.is_ascii_uppercase() {
            let after_lower = i > 0 && !chars[i - 1].is_ascii_uppercase();
            let before_lower = i > 0
                && chars.get(i + 1).is_some_and(char::is_ascii_lowercase)
                && chars[i - 1].is_ascii_uppercase();
            if after_lower || before_lower {
                out.push('_');
            }
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

pub(crate) fn field_name(name: &str) -> String {
    let name = snake(name);
    match name.as_str() {
        "type" | "match" | "ref" | "move" | "in" | "use" => format!("r#{name}"),
        _ => name,
    }
}

struct Emitter<'a> {
    message: &'a Message,
    out: String,
}

pub(crate) fn message(message: &Message) -> String {
    let mut emitter = Emitter {
        message,
        out: String::new(),
    };
    for item in &message.structs {
        emitter.definition(item);
        emitter.default(item);
        emitter.implementation(item);
    }
    emitter.traits();
    emitter.out
}

macro_rules! line {
    ($emitter:expr, $($arg:tt)*) => {{ let _ = writeln!($emitter.out, $($arg)*); }};
}

impl Emitter<'_> {
    fn plain_type(ty: &Type) -> String {
        match ty {
            Type::Fixed(name, _) => (*name).to_owned(),
            Type::Uuid => "Uuid".into(),
            Type::String => "Str".into(),
            Type::Bytes => "Bytes".into(),
            Type::Records => "Chunk".into(),
            Type::Struct(name) => name.clone(),
            Type::Array(element) => format!("Vec<{}>", Self::plain_type(element)),
        }
    }

    fn rust_type(field: &Field) -> String {
        let plain = Self::plain_type(&field.ty);
        if field.nullable.is_none() {
            plain
        } else {
            format!("Option<{plain}>")
        }
    }

    fn versions_text(range: Range) -> String {
        match (range.min, range.max) {
            (min, i16::MAX) => format!("{min}+"),
            (min, max) if min == max => format!("{min}"),
            (min, max) => format!("{min}-{max}"),
        }
    }

    fn definition(&mut self, item: &Struct) {
        line!(
            self,
            "#[derive(Debug, Clone, PartialEq)]\npub struct {} {{",
            item.name
        );
        for field in &item.fields {
            let tagged = if field.tagged.is_none() {
                String::new()
            } else {
                format!(", tag {}", field.tag)
            };
            line!(
                self,
                "/// Versions {}{tagged}.",
                Self::versions_text(field.versions)
            );
            line!(
                self,
                "pub {}: {},",
                field_name(&field.name),
                Self::rust_type(field)
            );
        }
        line!(self, "pub unknown_tagged_fields: TaggedFields,\n}}");
    }

    fn default_of(field: &Field) -> String {
        let default = field.default.as_deref();
        if default == Some("null") {
            return "None".into();
        }
        let plain = match &field.ty {
            Type::Fixed("bool", _) => default
                .filter(|text| !text.is_empty())
                .unwrap_or("false")
                .to_owned(),
            Type::Fixed("f64", _) => format!("{}f64", default.filter(|text| !text.is_empty()).unwrap_or("0")),
            Type::Fixed(..) => default.filter(|text| !text.is_empty()).unwrap_or("0").to_owned(),
            Type::Uuid => "Uuid::ZERO".into(),
            Type::String => match default {
                Some(text) if !text.is_empty() => format!("Str::from_static({text:?})"),
                _ => "Str::default()".into(),
            },
            Type::Bytes => "Bytes::new()".into(),
            Type::Records => "Chunk::default()".into(),
            Type::Struct(name) => format!("{name}::default()"),
            Type::Array(_) => "Vec::new()".into(),
        };
        if field.nullable.is_none() {
            plain
        } else {
            format!("Some({plain})")
        }
    }

    fn default(&mut self, item: &Struct) {
        line!(
            self,
            "impl Default for {} {{ fn default() -> Self {{ Self {{",
            item.name
        );
        for field in &item.fields {
            line!(self, "{}: {},", field_name(&field.name), Self::default_of(field));
        }
        line!(self, "unknown_tagged_fields: TaggedFields::default(),\n}} }} }}");
    }

    /// `is this field's value not its default`, on `self`.
    fn differs(field: &Field) -> String {
        let name = format!("self.{}", field_name(&field.name));
        let default = Self::default_of(field);
        match (&field.ty, default.as_str()) {
            (_, "None") => format!("{name}.is_some()"),
            (_, "Str::default()" | "Bytes::new()" | "Vec::new()") => format!("!{name}.is_empty()"),
            (_, "Some(Str::default())" | "Some(Bytes::new())" | "Some(Vec::new())") => {
                format!("{name}.as_ref().is_none_or(|value| !value.is_empty())")
            }
            (Type::Fixed("bool", _), "false") => name,
            (Type::Fixed("bool", _), "true") => format!("!{name}"),
            _ => format!("{name} != {default}"),
        }
    }

    fn implementation(&mut self, item: &Struct) {
        let known = item.versions.and(self.message.valid);
        line!(self, "impl {} {{", item.name);
        self.decode(item, known);
        self.encode(item, known);
        self.min_size(item, known);
        self.sample(item, known);
        line!(self, "}}");
    }

    fn flexible(&mut self, known: Range) {
        let flexible = self.message.flexible;
        let text = flexible.condition(known).unwrap_or_else(|| "true".into());
        line!(self, "let flexible = {text};");
    }

    fn read(&self, ty: &Type, nullable: bool, flexible: &str) -> String {
        let opt = if nullable { "opt_" } else { "" };
        match ty {
            Type::Fixed(name, _) => format!("r.{name}()?"),
            Type::Uuid => "r.uuid()?".into(),
            Type::String => format!("r.{opt}string({flexible})?"),
            Type::Bytes => format!("r.{opt}bytes({flexible})?"),
            Type::Records if nullable => format!("r.opt_bytes({flexible})?.map(Chunk::from)"),
            Type::Records => format!("Chunk::from(r.bytes({flexible})?)"),
            Type::Struct(name) if nullable => {
                format!("if r.i8()? < 0 {{ None }} else {{ Some({name}::decode_fields(r, version)?) }}")
            }
            Type::Struct(name) => format!("{name}::decode_fields(r, version)?"),
            Type::Array(element) => format!(
                "r.{opt}array({flexible}, {}, |r| Ok({}))?",
                self.least(element, flexible),
                self.read(element, false, flexible)
            ),
        }
    }

    /// The fewest bytes that a value takes on the wire.
    fn least(&self, ty: &Type, flexible: &str) -> String {
        match ty {
            Type::Fixed(_, size) => size.to_string(),
            Type::Uuid => "16".into(),
            Type::String => format!("if {flexible} {{ 1 }} else {{ 2 }}"),
            Type::Bytes | Type::Records | Type::Array(_) => format!("if {flexible} {{ 1 }} else {{ 4 }}"),
            Type::Struct(name) => format!("{name}::min_size(version)"),
        }
    }

    fn decode(&mut self, item: &Struct, known: Range) {
        line!(
            self,
            "fn decode_fields(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {{"
        );
        self.flexible(known);
        line!(self, "let mut v = Self::default();");
        for field in &item.fields {
            let flexible = if field.never_compact { "false" } else { "flexible" };
            let regular = regular_versions(field);
            if regular.and(known).is_none() {
                continue;
            }
            let within = regular.and(known);
            let value = if field.nullable.is_none() {
                self.read(&field.ty, false, flexible)
            } else {
                let some = format!("Some({})", self.read(&field.ty, false, flexible));
                match field.nullable.condition(within) {
                    None => self.read(&field.ty, true, flexible),
                    Some(condition) if condition == "false" => some,
                    Some(condition) => {
                        format!(
                            "if {condition} {{ {} }} else {{ {some} }}",
                            self.read(&field.ty, true, flexible)
                        )
                    }
                }
            };
            let name = field_name(&field.name);
            match regular.condition(known) {
                None => line!(self, "v.{name} = {value};"),
                Some(condition) => line!(self, "if {condition} {{ v.{name} = {value}; }}"),
            }
        }
        if !self.message.flexible.and(known).is_none() {
            line!(self, "if flexible {{ r.tagged_fields(|tag, r| {{ match tag {{");
            for field in item
                .fields
                .iter()
                .filter(|field| !field.tagged.and(known).is_none())
            {
                let nullable = !field.nullable.is_none();
                let value = self.read(&field.ty, nullable, "flexible");
                let guard = field
                    .tagged
                    .condition(known)
                    .map_or(String::new(), |text| format!("if {text}"));
                line!(
                    self,
                    "{} {guard} => {{ v.{} = {value}; Ok(true) }}",
                    field.tag,
                    field_name(&field.name)
                );
            }
            line!(
                self,
                "_ => Ok(false),\n}} }}).map(|unknown| v.unknown_tagged_fields = unknown)?; }}"
            );
        }
        line!(self, "Ok(v)\n}}");
    }

    fn write(&self, ty: &Type, value: &str, flexible: &str) -> String {
        match ty {
            Type::Fixed(name, _) => format!("w.{name}(*{value});"),
            Type::Uuid => format!("w.uuid({value});"),
            Type::String => format!("w.string({value}, {flexible})?;"),
            Type::Bytes => format!("w.bytes({value}, {flexible})?;"),
            Type::Records => format!("w.chunk({value}, {flexible})?;"),
            Type::Struct(_) => format!("{value}.encode_fields(w, version)?;"),
            Type::Array(element) => format!(
                "w.array_length({value}.len(), {flexible})?; for item in {value} {{ {} }}",
                self.write(element, "item", flexible)
            ),
        }
    }

    fn write_field(&self, field: &Field, flexible: &str) -> String {
        let name = field_name(&field.name);
        if field.nullable.is_none() {
            return self.write(&field.ty, &format!("(&self.{name})"), flexible);
        }
        let (some, null) = match &field.ty {
            Type::String => ("", format!("w.null_string({flexible});")),
            Type::Struct(_) => ("w.i8(1);", "w.i8(-1);".into()),
            _ => ("", format!("w.null_long({flexible});")),
        };
        let nullable = field
            .nullable
            .condition(self.message.valid)
            .unwrap_or_else(|| "true".into());
        // A nullable struct has its marker byte in nullable versions only; there are no others.
        format!(
            "match &self.{name} {{ Some(value) => {{ {some} {} }} None if {nullable} => {{ {null} }} \
             None => return Err(EncodeError::Null {{ field: \"{name}\", version }}), }}",
            self.write(&field.ty, "value", flexible)
        )
    }

    fn encode(&mut self, item: &Struct, known: Range) {
        line!(
            self,
            "fn encode_fields(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {{"
        );
        self.flexible(known);
        for field in &item.fields {
            let flexible = if field.never_compact { "false" } else { "flexible" };
            let regular = regular_versions(field);
            if !regular.and(known).is_none() {
                let write = self.write_field(field, flexible);
                match regular.condition(known) {
                    None => line!(self, "{write}"),
                    Some(condition) => line!(self, "if {condition} {{ {write} }}"),
                }
            }
            if !field.ignorable && !field.versions.covers(known) {
                let present = field.versions.condition(known).unwrap_or_else(|| "true".into());
                line!(
                    self,
                    "if !({present}) && {} {{ return Err(EncodeError::FieldNotInVersion {{ field: \"{}\", version }}); }}",
                    Self::differs(field),
                    snake(&field.name)
                );
            }
        }
        if !self.message.flexible.and(known).is_none() {
            let mut tagged: Vec<&Field> = item
                .fields
                .iter()
                .filter(|field| !field.tagged.and(known).is_none())
                .collect();
            tagged.sort_by_key(|field| field.tag);
            line!(self, "if flexible {{ let mut tags = TagWriter::default();");
            for field in tagged {
                let guard = field
                    .tagged
                    .condition(known)
                    .map_or(String::new(), |text| format!("{text} && "));
                line!(
                    self,
                    "if {guard}({}) {{ tags.put({}, |w| {{ {} Ok(()) }})?; }}",
                    Self::differs(field),
                    field.tag,
                    self.write_field(field, "flexible")
                );
            }
            line!(self, "tags.finish(w, &self.unknown_tagged_fields)?; }}");
        }
        line!(self, "Ok(())\n}}");
    }

    fn min_size(&mut self, item: &Struct, known: Range) {
        line!(
            self,
            "/// The fewest bytes that a value takes in this version.\n#[allow(dead_code)]"
        );
        line!(self, "fn min_size(version: i16) -> usize {{");
        self.flexible(known);
        line!(self, "let mut size = usize::from(flexible);");
        for field in &item.fields {
            let regular = regular_versions(field);
            if regular.and(known).is_none() {
                continue;
            }
            let flexible = if field.never_compact { "false" } else { "flexible" };
            let least = match &field.ty {
                Type::Struct(_) if !field.nullable.is_none() => "1".into(),
                ty => self.least(ty, flexible),
            };
            match regular.condition(known) {
                None => line!(self, "size += {least};"),
                Some(condition) => line!(self, "if {condition} {{ size += {least}; }}"),
            }
        }
        line!(self, "size.max(1)\n}}");
    }

    fn sample_of(&self, ty: &Type) -> String {
        match ty {
            Type::Fixed(name, _) => format!("s.{name}()"),
            Type::Uuid => "s.uuid()".into(),
            Type::String => "s.string()".into(),
            Type::Bytes => "s.bytes()".into(),
            Type::Records => "Chunk::from(s.bytes())".into(),
            Type::Struct(name) => format!("{name}::sample_fields(s, version)"),
            Type::Array(element) => format!("s.array(|s| {})", self.sample_of(element)),
        }
    }

    fn sample(&mut self, item: &Struct, known: Range) {
        line!(self, "#[cfg(feature = \"testing\")]");
        line!(
            self,
            "fn sample_fields(s: &mut crate::testing::Sampler, version: i16) -> Self {{"
        );
        self.flexible(known);
        line!(self, "let mut v = Self::default();");
        for field in &item.fields {
            let within = field.versions.and(known);
            if within.is_none() {
                continue;
            }
            let plain = self.sample_of(&field.ty);
            let value = if field.nullable.is_none() {
                plain
            } else {
                let nullable = field.nullable.condition(within).unwrap_or_else(|| "true".into());
                format!("if {nullable} && s.null() {{ None }} else {{ Some({plain}) }}")
            };
            let name = field_name(&field.name);
            match field.versions.condition(known) {
                None => line!(self, "v.{name} = {value};"),
                Some(condition) => line!(self, "if {condition} {{ v.{name} = {value}; }}"),
            }
        }
        line!(
            self,
            "if flexible {{ v.unknown_tagged_fields = s.tagged_fields(); }}\nv\n}}"
        );
    }

    fn traits(&mut self) {
        let name = &self.message.name;
        let Range { min, max } = self.message.valid;
        let flexible = self
            .message
            .flexible
            .condition(self.message.valid)
            .unwrap_or_else(|| "true".into());
        line!(self, "impl Message for {name} {{");
        line!(self, "const NAME: &'static str = \"{name}\";");
        line!(
            self,
            "const VERSIONS: std::ops::RangeInclusive<i16> = {min}..={max};"
        );
        line!(self, "fn is_flexible(version: i16) -> bool {{ {flexible} }}");
        line!(
            self,
            "fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {{"
        );
        line!(
            self,
            "check_version::<Self>(version)?; Self::decode_fields(r, version) }}"
        );
        line!(
            self,
            "fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {{"
        );
        line!(
            self,
            "check_encode_version::<Self>(version)?; self.encode_fields(w, version) }}"
        );
        let is_throttle = |field: &Field| field.name == "ThrottleTimeMs";
        let root = self
            .message
            .structs
            .iter()
            .find(|item| item.name == self.message.name);
        if root.is_some_and(|root| root.fields.iter().any(is_throttle)) {
            line!(
                self,
                "fn throttle_time_ms_mut(&mut self) -> Option<&mut i32> {{ Some(&mut self.throttle_time_ms) }}"
            );
        }
        line!(
            self,
            "#[cfg(feature = \"testing\")]\nfn sample(s: &mut crate::testing::Sampler, version: i16) -> Self {{ Self::sample_fields(s, version) }}"
        );
        line!(self, "}}");
    }
}

/// Versions in which the field stands between the others, not in the tagged section.
fn regular_versions(field: &Field) -> Range {
    if field.tagged.is_none() {
        field.versions
    } else if field.versions.min < field.tagged.min {
        Range {
            min: field.versions.min,
            max: field.tagged.min - 1,
        }
    } else {
        Range::NONE
    }
}
