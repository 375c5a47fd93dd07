//! Where things are when nobody says where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use machina_core::{Error, Result, Sensitive};

/// The environment of this process, read once.
pub(crate) type Variables = BTreeMap<String, String>;

/// The address of the store that is used when none is named: a SQLite file among
/// the user's own data, so that every command finds the same services whatever
/// directory it is started in.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) when the user has no home.
pub(crate) fn default_store(variables: &Variables) -> Result<String> {
    let directory = data_directory(variables).ok_or_else(|| {
        let detail = "is not set, and there is no home directory to put it in: name one, as in `sqlite:machina.db`";
        Error::invalid_field("store.url", detail)
    })?;
    Ok(format!("sqlite:{}", directory.join("machina.db").display()))
}

fn data_directory(variables: &Variables) -> Option<PathBuf> {
    let absolute = |name: &str| variables.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = if cfg!(windows) {
        absolute("LOCALAPPDATA")?
    } else if cfg!(target_os = "macos") {
        absolute("HOME")?.join("Library/Application Support")
    } else {
        absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?
    };
    Some(base.join("machina"))
}

/// `path` as it is meant in a file that lies in `directory`.
pub(crate) fn beside(directory: &Path, path: &Path) -> PathBuf {
    if path.is_absolute() { path.to_owned() } else { directory.join(path) }
}

/// The address of a store as it is meant in a file that lies in `directory`.
pub(crate) fn store_beside(directory: &Path, url: &str) -> String {
    let Some(path) = url.strip_prefix("sqlite:") else { return url.to_owned() };
    let path = path.strip_prefix("//").unwrap_or(path);
    format!("sqlite:{}", beside(directory, Path::new(path)).display())
}

/// The address of a store as it may be shown: without whom it is opened as.
pub(crate) fn shown_store(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{}@{}", Sensitive::MASK, &rest[user.len() + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_default_store_is_among_the_users_data() {
        let home = variables(&[("HOME", "/h")]);
        assert_eq!(default_store(&home).unwrap(), "sqlite:/h/.local/share/machina/machina.db");
        let xdg = variables(&[("HOME", "/h"), ("XDG_DATA_HOME", "/data")]);
        assert_eq!(default_store(&xdg).unwrap(), "sqlite:/data/machina/machina.db");
        let relative = variables(&[("XDG_DATA_HOME", "data")]);
        assert!(default_store(&relative).unwrap_err().message().contains("store.url"));
    }

    #[test]
    fn whom_a_store_is_opened_as_is_not_shown() {
        for plain in ["memory:", "sqlite:a@b.db", "sqlite:///a@b.db", "sqlite://m.db"] {
            assert_eq!(shown_store(plain), plain);
        }
        assert_eq!(shown_store("postgres://u:hunter2@h:1/d?x=@"), "postgres://********@h:1/d?x=@");
        assert_eq!(shown_store("redis://:p@ss@h"), "redis://********@h");
    }

    #[test]
    fn paths_in_a_file_are_relative_to_it() {
        let directory = Path::new("/etc/machina");
        assert_eq!(store_beside(directory, "sqlite:m.db"), "sqlite:/etc/machina/m.db");
        assert_eq!(store_beside(directory, "sqlite:///var/m.db"), "sqlite:/var/m.db");
        assert_eq!(store_beside(directory, "memory:"), "memory:");
    }
}
