//! String utilities. A character is a Unicode scalar value everywhere here.

use serde::Deserialize;
use serde_json::json;

use super::{TEXT_MAX, pure, text};
use crate::model::ToolResult;
use crate::native::NativeTool;

/// How many pieces a text may be split into.
const PIECES_MAX: usize = 10_000;

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Case {
    Upper,
    Lower,
    Title,
    Snake,
    Kebab,
    Camel,
}

#[derive(Deserialize)]
struct ChangeCase {
    text: String,
    case: Case,
}

#[derive(Deserialize)]
struct Replace {
    text: String,
    find: String,
    with: String,
}

#[derive(Deserialize)]
struct Split {
    text: String,
    separator: Option<String>,
}

pub(super) fn tools() -> Vec<NativeTool> {
    let given = || text("The text");
    let cases = json!({"enum": ["upper", "lower", "title", "snake", "kebab", "camel"]});
    let find =
        json!({"type": "string", "minLength": 1, "maxLength": 1000, "description": "What to look for, as it is"});
    vec![
        pure(
            "change_case",
            "Changes the letter case of a text.",
            json!({"text": given(), "case": cases}),
            &["text", "case"],
            |ChangeCase { text, case }| Ok(changed(&text, &case).into()),
        ),
        pure("count", "Counts characters, words, lines and bytes.", json!({"text": given()}), &["text"], count),
        pure(
            "replace",
            "Replaces each occurrence of a text in another.",
            json!({"text": given(), "find": find, "with": text("What to put in its place")}),
            &["text", "find", "with"],
            replace,
        ),
        pure("reverse", "Reverses the characters of a text.", json!({"text": given()}), &["text"], |Text { text }| {
            Ok(text.chars().rev().collect::<String>().into())
        }),
        pure(
            "split",
            "Splits a text at a separator, or at white space.",
            json!({"text": given(), "separator": find_or_nothing()}),
            &["text"],
            split,
        ),
    ]
}

fn find_or_nothing() -> serde_json::Value {
    json!({"type": "string", "minLength": 1, "maxLength": 1000, "description": "Without it, at white space"})
}

fn changed(text: &str, case: &Case) -> String {
    let words = || words(text).into_iter().map(|word| word.to_lowercase());
    match case {
        Case::Upper => text.to_uppercase(),
        Case::Lower => text.to_lowercase(),
        Case::Title => titled(text),
        Case::Snake => words().collect::<Vec<_>>().join("_"),
        Case::Kebab => words().collect::<Vec<_>>().join("-"),
        Case::Camel => {
            words().enumerate().map(|(index, word)| if index == 0 { word } else { capitalised(&word) }).collect()
        }
    }
}

/// The words of a text, also those of `someName` and `some_name`.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut inside, mut lower) = (false, false);
    for letter in text.chars() {
        if letter.is_alphanumeric() {
            if !inside || (lower && letter.is_uppercase()) {
                words.push(String::new());
            }
            words.iter_mut().last().into_iter().for_each(|word| word.push(letter));
        }
        (inside, lower) = (letter.is_alphanumeric(), letter.is_lowercase() || letter.is_numeric());
    }
    words
}

/// Each word with a capital letter; what is between them stays.
fn titled(text: &str) -> String {
    let mut inside = false;
    let mut titled = String::with_capacity(text.len());
    for letter in text.chars() {
        match inside {
            false => titled.extend(letter.to_uppercase()),
            true => titled.extend(letter.to_lowercase()),
        }
        inside = letter.is_alphanumeric() || letter == '\'';
    }
    titled
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn count(Text { text }: Text) -> Result<ToolResult, String> {
    Ok(json!({"characters": text.chars().count(), "words": text.split_whitespace().count(),
        "lines": text.lines().count(), "bytes": text.len()})
    .into())
}

fn replace(Replace { text, find, with }: Replace) -> Result<ToolResult, String> {
    let found = text.matches(&find).count();
    let length = text.len() - found * find.len() + found.saturating_mul(with.len());
    if length > 4 * TEXT_MAX {
        return Err(format!("the text would have {length} bytes, and may have {}", 4 * TEXT_MAX));
    }
    Ok(json!({"text": text.replace(&find, &with), "replaced": found}).into())
}

fn split(Split { text, separator }: Split) -> Result<ToolResult, String> {
    let pieces: Vec<&str> = match &separator {
        Some(separator) => text.split(separator.as_str()).take(PIECES_MAX + 1).collect(),
        None => text.split_whitespace().take(PIECES_MAX + 1).collect(),
    };
    if pieces.len() > PIECES_MAX {
        return Err(format!("the text has more than {PIECES_MAX} pieces"));
    }
    Ok(json!({ "pieces": pieces }).into())
}
