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

/// Whether a flag or variable of this name usually carries a secret.
pub(crate) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "secret", "password", "passwd", "api-key", "api_key", "apikey", "access-key", "access_key", "credential"]
        .iter()
        .any(|word| name.contains(word))
}

/// Marks those of `args` that carry a secret: the value of a flag whose name
/// says so (`--api-key=x`, `--token x`) and addresses with a password in them.
pub(crate) fn classify_args(args: Vec<String>) -> Vec<Sensitive> {
    let mut after_secret_flag = false;
    args.into_iter()
        .map(|arg| {
            let flag = arg.starts_with('-');
            let secret = match (flag, arg.split_once('=')) {
                (true, Some((name, _))) => names_a_secret(name),
                (true, None) => false,
                (false, _) => after_secret_flag || has_password(&arg),
            };
            after_secret_flag = flag && !arg.contains('=') && names_a_secret(&arg);
            if secret { Sensitive::secret(arg) } else { Sensitive::plain(arg) }
        })
        .collect()
}

/// Whether `text` is a URL with a password.
pub(crate) fn has_password(text: &str) -> bool {
    text.contains("://") && url::Url::parse(text).is_ok_and(|url| url.password().is_some())
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
        let args = ["--api-key=abc", "--token", "abc", "--path", "/x", "-y", "postgres://u:p@h/x", "--features=a"];
        let hidden: Vec<_> = classify_args(args.map(String::from).to_vec()).iter().map(Sensitive::is_secret).collect();
        assert_eq!(hidden, [true, false, true, false, false, false, true, false]);
    }
}
