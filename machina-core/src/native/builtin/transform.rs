//! Between JSON and CSV. A CSV has one header line, and text in every field; an
//! array of flat objects has the same.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{pure, text};
use crate::model::ToolResult;
use crate::native::NativeTool;

/// How many rows and columns a table may have.
const ROWS_MAX: usize = 100_000;
const COLUMNS_MAX: usize = 1000;

/// How many fields a table may have: rows of many columns cost more than their text.
const FIELDS_MAX: usize = 1_000_000;

#[derive(Deserialize)]
struct Rows {
    rows: Vec<Map<String, Value>>,
    delimiter: Option<char>,
}

#[derive(Deserialize)]
struct Csv {
    csv: String,
    delimiter: Option<char>,
    #[serde(default)]
    numbers: bool,
}

#[derive(Deserialize)]
struct Look {
    json: Value,
    pointer: String,
}

pub(super) fn tools() -> Vec<NativeTool> {
    let delimiter = json!({"enum": [",", ";", "\t", "|"], "description": "Between two fields; a comma by default"});
    let rows = json!({"type": "array", "maxItems": ROWS_MAX, "items": {"type": "object", "maxProperties": COLUMNS_MAX},
        "description": "The rows, as objects of columns"});
    let numbers = json!({"type": "boolean", "description": "Read what looks like a number as one; text by default"});
    let json_value = json!({"description": "JSON, or a text that holds JSON"});
    vec![
        pure(
            "json_to_csv",
            "Turns an array of objects into CSV; the columns are those of all rows, in order of appearance.",
            json!({"rows": rows, "delimiter": delimiter}),
            &["rows"],
            json_to_csv,
        ),
        pure(
            "csv_to_json",
            "Turns CSV with a header line into an array of objects.",
            json!({"csv": text("The CSV"), "delimiter": delimiter, "numbers": numbers}),
            &["csv"],
            csv_to_json,
        ),
        pure(
            "json_value",
            "Picks a value out of JSON by its JSON Pointer, such as /items/0/name.",
            json!({"json": json_value, "pointer": {"type": "string", "maxLength": 1000}}),
            &["json", "pointer"],
            json_at,
        ),
    ]
}

/// The delimiter as a byte: the schema allows only such.
fn byte(delimiter: Option<char>) -> Result<u8, String> {
    u8::try_from(delimiter.unwrap_or(',')).map_err(|_| "the delimiter must be one of , ; | and tab".to_owned())
}

fn json_to_csv(Rows { rows, delimiter }: Rows) -> Result<ToolResult, String> {
    let mut columns: Vec<&str> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for name in rows.iter().flat_map(Map::keys) {
        if seen.insert(name.as_str()) {
            columns.push(name);
        }
    }
    checked(rows.len(), columns.len())?;
    let mut writer = csv::WriterBuilder::new().delimiter(byte(delimiter)?).from_writer(Vec::new());
    if !columns.is_empty() {
        written(writer.write_record(&columns))?;
    }
    for row in &rows {
        written(writer.write_record(columns.iter().map(|column| field(row.get(*column)))))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    Ok(String::from_utf8(bytes).map_err(|error| error.to_string())?.into())
}

fn written(outcome: csv::Result<()>) -> Result<(), String> {
    outcome.map_err(|error| error.to_string())
}

/// A value in a field: text as it is, nothing as nothing, the rest as JSON.
fn field(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn csv_to_json(Csv { csv, delimiter, numbers }: Csv) -> Result<ToolResult, String> {
    let mut reader = csv::ReaderBuilder::new().delimiter(byte(delimiter)?).from_reader(csv.as_bytes());
    let columns = reader.headers().map_err(|error| error.to_string())?.clone();
    checked(0, columns.len())?;
    if let Some(twice) = columns.iter().enumerate().find(|(i, name)| columns.iter().take(*i).any(|one| one == *name)) {
        return Err(format!("the column `{}` is there twice", twice.1.escape_debug()));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        checked(rows.len() + 1, columns.len())?;
        let value = |text: &str| match numbers.then(|| number(text)).flatten() {
            Some(number) => number,
            None => Value::String(text.to_owned()),
        };
        let row: Map<_, _> = columns.iter().zip(&record).map(|(name, text)| (name.to_owned(), value(text))).collect();
        rows.push(row);
    }
    Ok(json!({ "rows": rows }).into())
}

/// A text that is a number, and no other text means: neither `007` nor `1e9`.
fn number(text: &str) -> Option<Value> {
    let number: Value = serde_json::from_str(text).ok().filter(Value::is_number)?;
    let written = number.to_string();
    (written == text).then_some(number)
}

fn checked(rows: usize, columns: usize) -> Result<(), String> {
    match () {
        () if columns > COLUMNS_MAX => Err(format!("there are {columns} columns, and may be {COLUMNS_MAX}")),
        () if rows > ROWS_MAX => Err(format!("there are more than {ROWS_MAX} rows")),
        () if rows.saturating_mul(columns) > FIELDS_MAX => Err(format!("there are more than {FIELDS_MAX} fields")),
        () => Ok(()),
    }
}

fn json_at(Look { json, pointer }: Look) -> Result<ToolResult, String> {
    let json = match json {
        Value::String(text) => {
            crate::json::strict_from_slice(text.as_bytes()).map_err(|error| format!("json: {error}"))?
        }
        other => other,
    };
    match json.pointer(&pointer) {
        Some(found) => Ok(json!({ "value": found }).into()),
        None => Err(format!("there is nothing at `{}`", pointer.escape_debug())),
    }
}
