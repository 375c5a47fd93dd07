//! Which program is the shepherd of children: data only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which program ends the children when this process ends in a way that lets it do nothing, as `kill -9` does.
/// As text it is `auto`, `off`, or an absolute path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ShepherdProgram {
    /// The binary `machina` is its own; a program that embeds Machina has none unless it names one.
    #[default]
    Auto,
    /// None: the system ends the children themselves (on Linux), and what they started goes on.
    Off,
    /// This one, called with the one argument `shepherd`: a binary `machina`.
    Path(PathBuf),
}

impl ShepherdProgram {
    /// The same, where `own` is meant by [`ShepherdProgram::Auto`].
    #[must_use]
    pub fn or_own(self, own: impl FnOnce() -> Option<PathBuf>) -> Self {
        match self {
            Self::Auto => own().map_or(Self::Off, Self::Path),
            other => other,
        }
    }
}

impl TryFrom<String> for ShepherdProgram {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            path if path.starts_with('/') => Ok(Self::Path(path.into())),
            _ => Err("must be `auto`, `off`, or the absolute path of a program"),
        }
    }
}

impl From<ShepherdProgram> for String {
    fn from(program: ShepherdProgram) -> Self {
        match program {
            ShepherdProgram::Auto => "auto".to_owned(),
            ShepherdProgram::Off => "off".to_owned(),
            ShepherdProgram::Path(path) => path.to_string_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_text_is_read_back_and_a_relative_path_is_refused() {
        for text in ["auto", "off", "/usr/bin/machina"] {
            let program: ShepherdProgram = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(&program).unwrap(), text);
        }
        let error = serde_json::from_value::<ShepherdProgram>("machina".into()).unwrap_err();
        assert!(error.to_string().contains("absolute path"), "{error}");
    }

    #[test]
    fn only_where_nothing_is_said_the_own_program_is_meant() {
        let own = || Some(PathBuf::from("/own"));
        assert_eq!(ShepherdProgram::Auto.or_own(own), ShepherdProgram::Path("/own".into()));
        assert_eq!(ShepherdProgram::Auto.or_own(|| None), ShepherdProgram::Off);
        for said in [ShepherdProgram::Off, ShepherdProgram::Path("/said".into())] {
            assert_eq!(said.clone().or_own(own), said);
        }
    }
}
