//! The other registry: its pages, each within limits. Whatever is wrong with one
//! of them ends the whole, so that a half of a list is never taken for the list.

use std::collections::BTreeSet;
use std::time::Duration;

use http::StatusCode;
use machina_core::json::strict_from_slice;
use machina_core::{Error, ErrorKind, Reach, Result, Timestamp};
use serde_json::Value;
use url::Url;

use crate::client::guard::{Guard, barred_in, guarded};

/// How many entries one page is asked for.
const PAGE: &str = "100";
/// How many pages a listing may have.
const PAGES_MAX: usize = 2_000;
/// How many entries all pages together may have.
const ENTRIES_MAX: usize = 100_000;
/// How many bytes one page may have, and all of them.
const PAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
const BYTES_MAX: usize = 512 * 1024 * 1024;
/// The longest cursor that is sent back.
const CURSOR_MAX: usize = 4096;
/// How long a connection and a page may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long all of it may take.
const LISTING_TIMEOUT: Duration = Duration::from_secs(900);

#[derive(Debug)]
pub(super) struct Source {
    http: reqwest::Client,
    /// The address of the list.
    list: Url,
    name: String,
}

impl Source {
    pub(super) fn new(url: &str) -> Result<Self> {
        let wrong = |detail: &str| Error::invalid_field("url", detail);
        let base = Url::parse(url).map_err(|_| wrong("must be an address such as https://registry.example"))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong("must begin with http:// or https://"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("must not have credentials in it"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(wrong("must end with the path"));
        }
        let address = base.as_str().trim_end_matches('/');
        let bare =
            ["/servers", "/v0.1", "/v0"].iter().fold(address, |rest, part| rest.strip_suffix(part).unwrap_or(rest));
        let version = if address.contains("/v0") && !address.contains("/v0.1") { "v0" } else { "v0.1" };
        let list = Url::parse(&format!("{bare}/{version}/servers")).map_err(|_| wrong("cannot have a path"))?;
        // An operator named it.
        let guard = Guard::new(Reach::inside());
        guard.check(&list)?;
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(PAGE_TIMEOUT);
        let http = guarded(builder, &guard)
            .build()
            .map_err(|error| Error::internal("the HTTP client cannot be set up").caused_by(error))?;
        Ok(Self { http, list, name: bare.to_owned() })
    }

    /// The registry, always in the same words.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Every entry, or every one that changed since.
    pub(super) async fn listing(&self, since: Option<Timestamp>) -> Result<Vec<Value>> {
        let all = tokio::time::timeout(LISTING_TIMEOUT, self.pages(since)).await;
        all.unwrap_or_else(|_| Err(Error::timeout(format!("{} takes longer than {LISTING_TIMEOUT:?}", self.name))))
    }

    async fn pages(&self, since: Option<Timestamp>) -> Result<Vec<Value>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut seen = BTreeSet::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let (page, length) = self.page(since, cursor.as_deref()).await?;
            bytes += length;
            entries.extend(page.entries);
            if bytes > BYTES_MAX || entries.len() > ENTRIES_MAX {
                return Err(self.broken(&format!("has more than {ENTRIES_MAX} entries or {BYTES_MAX} bytes")));
            }
            match page.next {
                None => return Ok(entries),
                Some(next) if next.len() > CURSOR_MAX => return Err(self.broken("has a cursor that is too long")),
                Some(next) if !seen.insert(next.clone()) => return Err(self.broken("leads back to an earlier page")),
                Some(next) => cursor = Some(next),
            }
        }
        Err(self.broken(&format!("has more than {PAGES_MAX} pages")))
    }

    async fn page(&self, since: Option<Timestamp>, cursor: Option<&str>) -> Result<(ListPage, usize)> {
        let mut url = self.list.clone();
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("limit", PAGE).append_pair("version", "latest").append_pair("include_deleted", "true");
            if let Some(since) = since {
                pairs.append_pair("updated_since", &since.to_string());
            }
            if let Some(cursor) = cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let mut response = self.http.get(url).send().await.map_err(|error| self.lost(error))?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                return Err(self.broken("leads to another address, and redirects are not followed: name the new one"));
            }
            status => {
                let error = self.broken(&format!("answered {status}"));
                return Err(error.with(|context| context.upstream_status = Some(status.as_u16())));
            }
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error))? {
            if body.len() + chunk.len() > PAGE_BYTES_MAX {
                return Err(self.broken(&format!("has a page of more than {PAGE_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let page = strict_from_slice(&body).ok().and_then(ListPage::read);
        let page = page.ok_or_else(|| self.broken("has a page that is no list of servers"))?;
        Ok((page, body.len()))
    }

    fn broken(&self, what: &str) -> Error {
        Error::rejected(format!("the registry at {} {what}", self.name))
    }

    fn lost(&self, error: reqwest::Error) -> Error {
        if let Some(barred) = barred_in(&error) {
            return barred.into_error(&format!("the registry at {}", self.name));
        }
        let error = error.without_url();
        let kind = match () {
            () if error.is_connect() => ErrorKind::Unreachable,
            () if error.is_timeout() => ErrorKind::Timeout,
            () => ErrorKind::Lost,
        };
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Error::new(kind, format!("the registry at {} cannot be read: {cause}", self.name)).caused_by(error)
    }
}

/// A page: its entries as they are, and where the next begins.
struct ListPage {
    entries: Vec<Value>,
    next: Option<String>,
}

impl ListPage {
    fn read(mut page: Value) -> Option<Self> {
        let Value::Array(entries) = page.get_mut("servers")?.take() else { return None };
        let metadata = page.get("metadata");
        let next = metadata.and_then(|metadata| metadata.get("nextCursor").or_else(|| metadata.get("next_cursor")));
        let next = match next {
            None | Some(Value::Null) => None,
            Some(Value::String(next)) => Some(next.clone()).filter(|next| !next.is_empty()),
            Some(_) => return None,
        };
        Some(Self { entries, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_registry_has_one_name_however_it_is_written() {
        for url in [
            "https://r.example/x",
            "https://r.example/x/",
            "https://R.example/x/v0.1",
            "https://r.example/x/v0.1/servers",
        ] {
            let source = Source::new(url).unwrap();
            assert_eq!(source.name(), "https://r.example/x");
            assert_eq!(source.list.as_str(), "https://r.example/x/v0.1/servers");
        }
        assert_eq!(Source::new("http://r.example/v0").unwrap().list.as_str(), "http://r.example/v0/servers");
    }

    #[test]
    fn metadata_is_no_registry() {
        for url in ["http://169.254.169.254/", "http://2852039166/v0.1", "http://[fe80::1]/", "http://0.0.0.0:8000"] {
            let error = Source::new(url).unwrap_err();
            assert!(
                error.kind() == ErrorKind::Unreachable && error.message().contains("no service is reached"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_plain_addresses_are_taken() {
        for wrong in
            ["", "r.example", "ftp://r.example", "http://u:p@r.example", "http://r.example/?a", "http://r.example/#a"]
        {
            let error = Source::new(wrong).unwrap_err();
            assert_eq!(error.context().problems[0].field, "url", "{wrong}");
            assert!(!error.message().contains("u:p"), "{error}");
        }
    }
}
