//! Identifiers. A value of one of these types is well-formed by construction.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock;
use crate::error::{Error, Result};

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses `text`.
            ///
            /// # Errors
            /// [`Invalid`](crate::ErrorKind::Invalid), saying what would be right.
            pub fn new(text: &str) -> Result<Self> {
                $check(text).map_err(|detail| Error::invalid_field($field, detail))?;
                Ok(Self(text.into()))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> std::result::Result<Self, String> {
                $check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_type! {
    /// The unique name of a service: `[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?`,
    /// optionally with a `namespace/` before it, so that names of the official
    /// registry such as `io.github.user/name` are kept as they are.
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = "^([A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?|[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?)$"))]
    ServiceName, "name", check_service_name
}
text_type! {
    /// The unique name of a group: `[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?`, so that
    /// it is one segment of a path.
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = "^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$"))]
    GroupName, "name", check_group_name
}
text_type! {
    /// The name of a tool as its server publishes it: 1 to 128 characters, none
    /// of them a control character.
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, min_length = 1, max_length = 128))]
    ToolName, "tool", check_tool_name
}
text_type! {
    /// A tag: 1 to 64 characters without white space at the ends or control
    /// characters. Compared exactly.
    #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, min_length = 1, max_length = 64))]
    Tag, "tag", check_tag
}

fn check_service_name(text: &str) -> std::result::Result<(), String> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    let either: fn(char) -> bool = |c| c.is_ascii_alphanumeric();
    let good = match namespace {
        Some(namespace) => is_name(namespace, either) && is_name(name, either),
        None => is_name(name, lower),
    };
    if good {
        return Ok(());
    }
    Err(format!(
        "`{}` is not a service name: use 1 to 100 of a-z 0-9 . _ - with a letter or digit at both ends, optionally \
         after `namespace/`",
        shown(text)
    ))
}

fn check_group_name(text: &str) -> std::result::Result<(), String> {
    if is_name(text, lower) {
        return Ok(());
    }
    let shown = shown(text);
    Err(format!("`{shown}` is not a group name: use 1 to 100 of a-z 0-9 . _ - with a letter or digit at both ends"))
}

fn is_name(text: &str, edge: fn(char) -> bool) -> bool {
    let inner = |c: char| matches!(c, '.' | '_' | '-');
    text.len() <= 100 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || inner(c))
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn shown(text: &str) -> String {
    text.chars().take(120).collect::<String>().escape_debug().to_string()
}

pub(super) fn check_tool_name(text: &str) -> std::result::Result<(), String> {
    check_text(text, 128)
}

fn check_tag(text: &str) -> std::result::Result<(), String> {
    check_text(text, 64)?;
    if text.trim() == text { Ok(()) } else { Err("must not begin or end with white space".into()) }
}

fn check_text(text: &str, longest: usize) -> std::result::Result<(), String> {
    let length = text.chars().count();
    if length == 0 || length > longest {
        return Err(format!("must have 1 to {longest} characters, has {length}"));
    }
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".into());
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new identifier that sorts after those made before it (UUIDv7, RFC 9562).
            #[must_use]
            pub fn generate() -> Self {
                let now = clock::now().as_duration();
                let seconds = u64::try_from(now.as_secs()).unwrap_or_default();
                let nanos = u32::try_from(now.subsec_nanos()).unwrap_or_default();
                Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::ContextV7::new(), seconds, nanos)))
            }

            /// The UUID itself.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let uuid = text.parse().map_err(|_| Error::invalid_field($field, "must be a UUID"))?;
                Ok(Self(uuid))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id_type! {
    /// The identity of a service: stays the same when it is renamed.
    ServiceId, "id"
}
id_type! {
    /// The identity of an instance.
    InstanceId, "instance"
}

/// The store's clock: one number per committed batch, never reused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of an empty store.
    pub const ZERO: Self = Self(0);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names() {
        for good in ["a", "time", "mcp-server.time_2", "io.github.User/My-Server", &"a".repeat(100)] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Time", "-a", "a-", "a b", "a/b/c", "/a", "a/", "ä", "a\u{0}", &"a".repeat(101)] {
            let error = ServiceName::new(bad).unwrap_err();
            assert_eq!(error.context().problems[0].field, "name", "{bad}");
            assert!(serde_json::from_value::<ServiceName>(bad.into()).is_err());
        }
    }

    #[test]
    fn group_names_are_one_segment_of_a_path() {
        for good in ["a", "data-team.v2_x", &"a".repeat(100)] {
            assert_eq!(GroupName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "-a", "a/b", "..", "a b", "ä", &"a".repeat(101)] {
            assert_eq!(GroupName::new(bad).unwrap_err().context().problems[0].field, "name", "{bad}");
        }
    }

    #[test]
    fn tool_names_and_tags() {
        assert!(ToolName::new("search files").is_ok());
        assert!(ToolName::new("").is_err());
        assert!(ToolName::new("a\nb").is_err());
        assert!(Tag::new(" a").is_err());
        assert!(Tag::new(&"t".repeat(65)).is_err());
    }

    #[test]
    fn ids_are_version_7_and_read_back() {
        let id = ServiceId::generate();
        assert_eq!(id.as_uuid().get_version_num(), 7);
        assert_eq!(id.to_string().parse::<ServiceId>().unwrap(), id);
        assert!("nonsense".parse::<InstanceId>().is_err());
    }
}
