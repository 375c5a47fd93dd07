//! Text to a JSON value: JSON with comments and trailing commas, or TOML. An
//! error names line and column and never quotes the text, which may hold
//! secrets.

use jsonc_parser::ast::{ObjectProp, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::ParseErrorKind;
use jsonc_parser::{CollectOptions, ParseOptions, ParseStringErrorKind, parse_to_ast};
use machina_core::{Error, Result};
use serde_json::{Map, Number, Value};

use super::note::{Notes, element, field};

/// The longest text that is read, in bytes.
const TEXT_MAX: usize = 16 * 1024 * 1024;

/// JSON as hosts read it: with comments and trailing commas, otherwise strict.
const JSONC: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// A parsed text and what is to be said about its form.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Value,
    pub(super) notes: Notes,
}

pub(super) fn parse(text: &str) -> Result<Document> {
    if text.len() > TEXT_MAX {
        let detail = format!("has {} bytes, must have at most {TEXT_MAX}", text.len());
        return Err(Error::invalid_field("text", detail));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if looks_like_json(text) { parse_jsonc(text) } else { parse_toml(text) }
}

/// JSON begins with a brace, a quote or a `//` comment; or with a bracket before
/// an object, where TOML has the name of a table.
fn looks_like_json(text: &str) -> bool {
    let text = text.trim_start();
    match text.strip_prefix('[') {
        Some(rest) => rest.trim_start().starts_with(['{', ']', '/']),
        None => text.starts_with(['{', '"', '/']),
    }
}

fn parse_jsonc(text: &str) -> Result<Document> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &JSONC).map_err(|error| {
        let hint = match error.kind() {
            ParseErrorKind::String(ParseStringErrorKind::InvalidEscapeInDoubleQuoteString) => {
                " (a backslash, as in a Windows path, is written `\\\\`)"
            }
            ParseErrorKind::MultipleRootJsonValues => " (the whole must be one object in braces)",
            _ => "",
        };
        malformed("JSON", error.line_display(), error.column_display(), &format!("{}{hint}", error.kind()))
    })?;
    let Some(root) = parsed.value else { return Err(Error::invalid_field("text", "is empty")) };
    let mut notes = Notes::default();
    let root = convert(root, "", text, &mut notes);
    Ok(Document { root, notes })
}

fn convert(value: Ast<'_>, path: &str, text: &str, notes: &mut Notes) -> Value {
    match value {
        Ast::NullKeyword(_) => Value::Null,
        Ast::BooleanLit(literal) => Value::Bool(literal.value),
        Ast::StringLit(literal) => Value::String(literal.value.into_owned()),
        Ast::NumberLit(literal) => {
            literal.value.parse::<Number>().map_or_else(|_| Value::String(literal.value.to_owned()), Value::Number)
        }
        Ast::Array(array) => {
            let items = array.elements.into_iter().enumerate();
            Value::Array(items.map(|(index, item)| convert(item, &element(path, index), text, notes)).collect())
        }
        Ast::Object(object) => Value::Object(convert_object(object.properties, path, text, notes)),
    }
}

fn convert_object(fields: Vec<ObjectProp<'_>>, path: &str, text: &str, notes: &mut Notes) -> Map<String, Value> {
    let mut map = Map::new();
    for prop in fields {
        let line = text[..prop.start()].matches('\n').count() + 1;
        let key = prop.name.into_string();
        let path = field(path, &key);
        let value = convert(prop.value, &path, text, notes);
        if map.insert(key, value).is_some() {
            notes.warn(path, format!("is given more than once; the last one counts (line {line})"));
        }
    }
    map
}

fn parse_toml(text: &str) -> Result<Document> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        malformed("TOML", line, column, error.message())
    })?;
    if table.is_empty() {
        return Err(Error::invalid_field("text", "is empty"));
    }
    let root = serde_json::to_value(table)
        .map_err(|error| Error::invalid_field("text", format!("cannot be represented as JSON: {error}")))?;
    Ok(Document { root, notes: Notes::default() })
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn malformed(language: &str, line: usize, column: usize, detail: &str) -> Error {
    let detail = format!("is not {language}: line {line}, column {column}: {}", detail.trim_end());
    Error::invalid_field("text", detail)
}
