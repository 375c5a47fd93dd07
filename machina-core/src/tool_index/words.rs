//! The words of a text: lower-case, split also at changes of case within a name
//! (`getCurrentTime`) and at anything that is no letter or digit, without the `s` of
//! plurals.

/// Hands every word of `text` to `each`, in order.
pub(super) fn words(text: &str, each: &mut impl FnMut(&str)) {
    let mut word = String::new();
    for run in text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()) {
        let mut rest = run.chars().peekable();
        let mut before: Option<char> = None;
        while let Some(c) = rest.next() {
            let humps = before.is_some_and(|before| before.is_lowercase() && c.is_uppercase());
            let acronym_ends = before.is_some_and(char::is_uppercase)
                && c.is_uppercase()
                && rest.peek().is_some_and(|after| after.is_lowercase());
            if (humps || acronym_ends) && !word.is_empty() {
                each(stem(&word));
                word.clear();
            }
            if c.is_ascii() {
                word.push(c.to_ascii_lowercase())
            } else {
                word.extend(c.to_lowercase())
            }
            before = Some(c);
        }
        if !word.is_empty() {
            each(stem(&word));
            word.clear();
        }
    }
}

/// Takes the plural `s` off, so that `file` finds `files`.
fn stem(word: &str) -> &str {
    let plural = word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") && word.is_ascii();
    if plural { &word[..word.len() - 1] } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_words() {
        let mut found = Vec::new();
        words("getCurrentTime HTTPServer read_files list-dirs v2 ÉtatÉté", &mut |word| found.push(word.to_owned()));
        let expected = ["get", "current", "time", "http", "server", "read", "file", "list", "dir", "v2", "état", "été"];
        assert_eq!(found, expected);
    }
}
