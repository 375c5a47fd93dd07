//! Text that may be a secret: an environment value, a header, an argument.
//!
//! A secret shows as `********` wherever it is printed, logged or serialised;
//! only [`Sensitive::expose`] gives the text. A store keeps secrets apart from
//! the record (see [`crate::ServiceSpec::secrets`]), so a serialised record
//! never holds one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map of names to sensitive values: environment variables or headers.
pub type SensitiveMap = BTreeMap<String, Sensitive>;

/// Text that is shown only when it is known not to be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Sensitive {
    text: String,
    secret: bool,
}

impl Sensitive {
    /// What stands for a secret. Sent back in an update, it means "as before".
    pub const MASK: &'static str = "********";

    /// A secret, unless `text` is only a reference such as `${env:TOKEN}`:
    /// a reference is not a secret and is shown.
    pub fn secret(text: impl Into<String>) -> Self {
        let text = text.into();
        let secret = !is_reference(&text) && !text.is_empty();
        Self { text, secret }
    }

    /// Text that may be shown.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), secret: false }
    }

    /// Whether the text is hidden.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Whether this is the mask itself: a value that a reader was not shown.
    #[must_use]
    pub fn is_mask(&self) -> bool {
        self.text == Self::MASK
    }

    /// The text itself, for the one place that uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The text as anyone may see it.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.secret { Self::MASK } else { &self.text }
    }
}

/// Whether `text` consists of one placeholder without a default that could
/// itself be a secret.
fn is_reference(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inner| !inner.contains(['$', '{', '}']) && !inner.contains(":-"))
}

/// Whether a flag, variable, header or parameter of this name usually carries a
/// secret.
pub(crate) fn names_a_secret(name: &str) -> bool {
    const PARTS: [&str; 12] = [
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "credential",
        "apikey",
        "accesskey",
        "privatekey",
        "authorization",
        "bearer",
        "signature",
    ];
    const WORDS: [&str; 6] = ["key", "auth", "pat", "pwd", "sig", "dsn"];
    let name = name.to_ascii_lowercase();
    let joined: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    PARTS.iter().any(|part| joined.contains(part))
        || name.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
}

/// Whether text looks like a token of a well-known issuer.
fn is_token(text: &str) -> bool {
    const ISSUERS: [&str; 10] = ["ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "sk-", "sk_", "rk_", "xox", "eyJ"];
    text.len() >= 12 && ISSUERS.iter().any(|issuer| text.starts_with(issuer))
}

/// Marks those of `args` that carry a secret: the value of a flag whose name
/// says so (`--api-key=x`, `--token x`) or that sets a header or a variable
/// (`-H`, `-e NAME=x`), assignments to such names, addresses with a password or
/// a token in them, and well-known tokens. A guess, made on the careful side.
pub(crate) fn classify_args(args: Vec<String>) -> Vec<Sensitive> {
    let mut before = String::new();
    args.into_iter()
        .map(|arg| {
            let secret = carries_secret(&before, &arg);
            before.clone_from(&arg);
            if secret { Sensitive::secret(arg) } else { Sensitive::plain(arg) }
        })
        .collect()
}

/// Whether `arg`, which follows `before`, carries a secret.
fn carries_secret(before: &str, arg: &str) -> bool {
    let flag_before = before.starts_with('-') && !before.contains('=');
    let own_flag = arg.starts_with('-');
    if !own_flag && flag_before && (names_a_secret(before) || matches!(before, "-H" | "--header")) {
        return true;
    }
    let mut value = arg;
    if let Some((name, rest)) = arg.split_once(['=', ':']).filter(|(_, rest)| !rest.starts_with("//")) {
        let name_at_the_end = name.rsplit(['=', ' ']).next().unwrap_or(name);
        if !rest.is_empty() && (names_a_secret(name_at_the_end) || matches!(name, "--header" | "-H")) {
            return true;
        }
        // `--env=API_KEY=x`: what is assigned may be an assignment itself.
        if rest.split_once('=').is_some_and(|(inner, rest)| !rest.is_empty() && names_a_secret(inner)) {
            return true;
        }
        value = rest;
    }
    [arg, value].into_iter().any(|text| is_token(text) || is_secret_url(text))
}

/// Whether `text` is a URL with credentials: user information, or a parameter
/// whose name says so.
pub(crate) fn is_secret_url(text: &str) -> bool {
    text.contains("://")
        && url::Url::parse(text).is_ok_and(|url| {
            let credentials =
                url.password().is_some() || (!url.username().is_empty() && url.scheme().starts_with("http"));
            credentials || url.query_pairs().any(|(name, _)| names_a_secret(&name))
        })
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

impl Serialize for Sensitive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Sensitive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::secret(String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows() {
        let secret = Sensitive::secret("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(serde_json::to_value(&secret).unwrap(), Sensitive::MASK);
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_reference_is_shown_and_a_default_is_not() {
        assert_eq!(Sensitive::secret("${env:TOKEN}").shown(), "${env:TOKEN}");
        assert_eq!(Sensitive::secret("${TOKEN:-hunter2}").shown(), Sensitive::MASK);
        assert_eq!(Sensitive::secret("x${env:TOKEN}").shown(), Sensitive::MASK);
    }

    #[test]
    fn arguments_that_carry_secrets_are_found() {
        let hidden: [&[&str]; 14] = [
            &["--api-key=abc"],
            &["--token", "abc"],
            &["-e", "GITHUB_TOKEN=ghp_x"],
            &["--env=API_KEY=x"],
            &["OPENAI_API_KEY=x"],
            &["--header", "X-Whatever: x"],
            &["--header=Authorization: Bearer x"],
            &["Authorization: Bearer x"],
            &["--dsn=postgres://u:p@h/db"],
            &["postgres://u:p@h/x"],
            &["https://token@host/x"],
            &["https://host/x?sig=abc"],
            &["ghp_0123456789abcdef"],
            &["AC0000/SK0000:sk-0123456789"],
        ];
        for args in hidden {
            let args = args.iter().map(ToString::to_string).collect();
            assert!(classify_args(args).last().unwrap().is_secret(), "{hidden:?}");
        }
        let shown = [
            "--path",
            "/x",
            "-y",
            "--features=a",
            "@scope/package@1.2.3",
            "--access-token",
            "--monkey=1",
            "stdio",
            "postgresql://127.0.0.1:5432/x",
            "redis://127.0.0.1:6379/0",
            "https://host/mcp?page=2",
            "C:\\data",
            "--author",
            "me",
            "--header",
        ];
        for arg in shown {
            assert!(!classify_args(vec![arg.to_owned()])[0].is_secret(), "{arg}");
        }
    }
}
