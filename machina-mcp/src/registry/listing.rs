//! The questions that the registry answers: a page of servers, the versions of
//! one, one version. Every service has one version here: the latest.

use http::StatusCode;
use machina_core::Scoped;
use serde_json::{Value, json};

use super::cursor::Cursor;
use super::failure::Failure;
use super::listed::{Listed, all};
use super::names::Names;
use super::parameters::ListQuery;
use super::tombstones::Tombstones;

/// A page ends early, after at least one entry, when it has this many bytes.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The registry as one principal sees it.
pub(super) struct Listing<'a> {
    pub(super) scoped: &'a Scoped,
    pub(super) names: Names<'a>,
    pub(super) tombstones: &'a Tombstones,
    /// A page of another site reads it.
    pub(super) for_foreign_page: bool,
}

impl Listing<'_> {
    /// One page: by the time of the last change, so that whatever changes
    /// meanwhile comes on a later page and nothing is left out.
    pub(super) async fn page(&self, query: &ListQuery) -> Result<Vec<u8>, Failure> {
        let departed = match query.filter.include_deleted {
            true => self.tombstones.of(self.scoped).await?,
            false => Vec::new(),
        };
        let mut entries = all(self.scoped, &self.names, departed);
        entries.retain(|entry| {
            query.after.as_ref().is_none_or(|after| entry.position > *after) && entry.fits(&query.filter)
        });
        entries.sort_by(|a, b| a.position.cmp(&b.position));
        let (mut servers, mut bytes) = (Vec::new(), 0);
        for entry in entries.iter().take(query.limit) {
            let text = entry.document(self.for_foreign_page).to_string();
            bytes += text.len();
            servers.push(text);
            if bytes >= PAGE_BYTES_MAX {
                break;
            }
        }
        let count = servers.len();
        let mut metadata = json!({ "count": count });
        if count < entries.len()
            && let Some(last) = entries.get(count.saturating_sub(1))
        {
            let limit = u32::try_from(query.limit).unwrap_or(1);
            let cursor = Cursor { limit, filter: query.filter.clone(), after: last.position.clone() };
            metadata["nextCursor"] = cursor.text().into();
        }
        Ok(format!(r#"{{"servers":[{}],"metadata":{metadata}}}"#, servers.join(",")).into_bytes())
    }

    /// All versions of one server.
    pub(super) async fn versions(&self, name: &str, include_deleted: bool) -> Result<Value, Failure> {
        let entry = self.entry(name, include_deleted).await?;
        Ok(json!({ "servers": [entry.document(self.for_foreign_page)], "metadata": { "count": 1 } }))
    }

    /// One version of one server.
    pub(super) async fn version(&self, name: &str, version: &str, include_deleted: bool) -> Result<Value, Failure> {
        let entry = self.entry(name, include_deleted).await?;
        if version != "latest" && version != entry.position.version {
            let detail = format!("Server not found: the version of `{name}` is {}", entry.position.version);
            return Err(Failure::new(StatusCode::NOT_FOUND, detail));
        }
        Ok(entry.document(self.for_foreign_page))
    }

    async fn entry(&self, name: &str, include_deleted: bool) -> Result<Listed, Failure> {
        let registered = self.names.find(name).map(|view| Listed::service(view, &self.names));
        let found = match registered {
            None if include_deleted => {
                let departed = self.tombstones.of(self.scoped).await?;
                let mut gone = departed.into_iter().map(|departed| Listed::gone(departed, &self.names));
                gone.find(|entry| entry.position.name == name)
            }
            found => found.filter(|entry| include_deleted || !entry.is_deleted()),
        };
        found.ok_or_else(|| {
            let shown: String = name.chars().take(200).flat_map(char::escape_debug).collect();
            Failure::new(StatusCode::NOT_FOUND, format!("Server not found: {shown}"))
        })
    }
}
