//! Finds characters in the texts of a tool that people do not see or take for
//! others, while a model reads them: a way to hide instructions, or to pass for
//! another tool (Unicode Technical Standard 39). Says so, and changes nothing.

use std::collections::BTreeSet;

use unicode_security::mixed_script::MixedScript as _;
use unicode_security::skeleton;

/// How many findings are told of one text.
const FINDINGS_MAX: usize = 8;

/// What is suspicious about `text`, the `field` of a tool.
pub(super) fn suspicious(field: &str, text: &str) -> Vec<String> {
    if text.is_ascii() && !text.contains(|c: char| c.is_control() && !is_layout(c)) {
        return Vec::new();
    }
    let unseen: BTreeSet<char> = text.chars().filter(|c| hidden(*c).is_some()).collect();
    let unseen = unseen.into_iter().filter_map(|c| Some(format!("{field}: {} U+{:04X}", hidden(c)?, u32::from(c))));
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_ascii() && is_disguised(word));
    let words: BTreeSet<&str> = words.collect();
    let disguised = words.into_iter().map(|word| {
        let (word, shown): (String, String) = (word.chars().take(40).collect(), skeleton(word).take(40).collect());
        format!("{field}: `{}` looks like `{shown}`", word.escape_unicode())
    });
    unseen.chain(disguised).take(FINDINGS_MAX).collect()
}

const fn is_layout(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\t')
}

/// What kind of a character that is not seen it is.
fn hidden(c: char) -> Option<&'static str> {
    match c {
        c if c.is_control() => (!is_layout(c)).then_some("control character"),
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some("bidirectional control")
        }
        '\u{e0000}'..='\u{e007f}' => Some("tag character"),
        '\u{fe00}'..='\u{fe0e}' | '\u{e0100}'..='\u{e01ef}' => Some("variation selector"),
        '\u{ad}'
        | '\u{34f}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2064}'
        | '\u{feff}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{3164}'
        | '\u{ffa0}' => Some("invisible character"),
        '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}' => Some("private character"),
        _ => None,
    }
}

/// Whether a word mixes scripts, or looks like a Latin one without being it.
fn is_disguised(word: &str) -> bool {
    let looks_latin = || skeleton(word).all(|c| c.is_ascii_alphanumeric());
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    !word.is_single_script() || (letters > 2 && word.chars().all(|c| !c.is_ascii_alphabetic()) && looks_latin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_or_disguised_is_named() {
        for (text, said) in [
            ("search\u{200b} the web", "description: invisible character U+200B"),
            ("\u{202e}reversed", "bidirectional control U+202E"),
            ("bell\u{7}", "control character U+0007"),
            ("tag\u{e0041}", "tag character U+E0041"),
            ("p\u{430}ypal", "looks like `paypal`"),
            ("\u{440}\u{430}\u{443}", "looks like `pay`"),
        ] {
            let told = suspicious("description", text);
            assert!(told.iter().any(|told| told.contains(said)), "{text:?}: {told:?}");
        }
        let many: String = (0..100_u32).filter_map(|n| char::from_u32(0xe000 + n)).collect();
        assert_eq!(suspicious("title", &many).len(), FINDINGS_MAX);
    }

    #[test]
    fn honest_texts_of_every_language_are_not() {
        for text in [
            "Searches the web.\n\tReturns ≤ 10 results – “quoted”, naïve café, 5 µs, Ω",
            "Поиск в интернете и в API",
            "ウェブを検索する API です",
            "搜索网络 (web)",
            "חיפוש",
            "✅ done 🚀",
        ] {
            assert_eq!(suspicious("description", text), Vec::<String>::new(), "{text}");
        }
    }
}
