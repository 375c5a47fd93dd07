//! What a server was told in confidence, and may say again: in its stderr, in an
//! error, in the body of a refusal. Refuses to let any of it reach a reader.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use machina_core::Sensitive;
use serde_json::Value;
use url::Url;

/// Texts that must never be shown, the longest first. Its `Debug` shows how many, not which.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<[String]>);

/// Shorter texts are not worth hiding: they would blank out ordinary words.
const SECRET_LEN_MIN: usize = 6;

impl Secrets {
    /// Hides those of `texts` that are long enough to be told from ordinary text.
    pub(crate) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let mut texts: Vec<_> = texts.into_iter().filter(|t| t.len() >= SECRET_LEN_MIN).collect();
        texts.sort_by_key(|t| std::cmp::Reverse(t.len()));
        Self(texts.into())
    }

    /// Hides what a request to `url`, declared as `declared`, carries along with `headers`.
    pub(crate) fn of_http(declared: &Sensitive, url: &Url, headers: &HeaderMap) -> Self {
        let headers = headers.values().flat_map(of_header);
        Self::new(of_url(declared, url).into_iter().chain(headers))
    }

    /// `text` with every secret masked.
    pub(crate) fn mask(&self, mut text: String) -> String {
        for secret in self.0.iter() {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), Sensitive::MASK);
            }
        }
        text
    }

    /// `value` with every secret masked, in its keys too.
    pub(crate) fn masked(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.mask(text.clone()).into(),
            Value::Array(items) => items.iter().map(|item| self.masked(item)).collect(),
            Value::Object(members) => {
                members.iter().map(|(key, member)| (self.mask(key.clone()), self.masked(member))).collect()
            }
            other => other.clone(),
        }
    }

    /// How many bytes at the front of `bytes`, which were cut there, may be the
    /// rest of a secret.
    pub(crate) fn rest_at_front(&self, bytes: &[u8]) -> usize {
        let rests = self.0.iter().map(|secret| {
            let secret = secret.as_bytes();
            (1..secret.len()).find(|cut| bytes.starts_with(&secret[*cut..])).map_or(0, |cut| secret.len() - cut)
        });
        rests.max().unwrap_or_default()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// A header's value; what follows its scheme; and the password of `Basic`.
fn of_header(value: &HeaderValue) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return Vec::new() };
    let mut secrets = vec![text.to_owned()];
    if let Some((scheme, credentials)) = text.split_once(' ') {
        let credentials = credentials.trim();
        secrets.push(credentials.to_owned());
        let basic = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(credentials).ok()).flatten();
        if let Some((_, password)) = basic.as_deref().and_then(|b| std::str::from_utf8(b).ok()?.split_once(':')) {
            secrets.push(password.to_owned());
        }
    }
    secrets
}

/// The parts of `url` that its declaration does not show, as sent and as meant.
fn of_url(declared: &Sensitive, url: &Url) -> Vec<String> {
    let path = url.path_segments().into_iter().flatten();
    let query = url.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, v)| v));
    let parts = [url.username(), url.password().unwrap_or_default()].into_iter().chain(path).chain(query);
    let hidden = parts.filter(|part| declared.is_secret() || !declared.expose().contains(part));
    hidden.flat_map(|part| [part.to_owned(), decoded(part)]).collect()
}

fn decoded(part: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(part.as_bytes());
    pairs.next().map_or_else(String::new, |(text, _)| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_header_that_is_a_secret_is_masked_alone_too() {
        let url: Url = "http://host/mcp".parse().unwrap();
        let headers = ["Bearer hunter2-hunter2", "Basic dXNlcjpob3JzZS1iYXR0ZXJ5", "plain-key-1"];
        let headers = headers.map(|value| (http::header::AUTHORIZATION, HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.into_iter().for_each(|(name, value)| _ = map.append(name, value));
        let secrets = Secrets::of_http(&Sensitive::plain("http://host/mcp"), &url, &map);
        let said = "bad token hunter2-hunter2, dXNlcjpob3JzZS1iYXR0ZXJ5, horse-battery, plain-key-1 at http://host/mcp";
        assert_eq!(
            secrets.mask(said.to_owned()),
            "bad token ********, ********, ********, ******** at http://host/mcp"
        );
        assert_eq!(format!("{secrets:?}"), "Secrets(6)");
    }

    #[test]
    fn what_a_declared_address_does_not_show_is_masked() {
        let declared = Sensitive::plain("http://host/visible/${TOKEN}/mcp?mode=readonly&key=${KEY}");
        let url: Url = "http://host/visible/path-token/mcp?mode=readonly&key=a%20secret%2Fkey".parse().unwrap();
        let secrets = Secrets::of_http(&declared, &url, &HeaderMap::new());
        let said = "/visible/path-token/mcp?mode=readonly: a%20secret%2Fkey is a secret/key";
        assert_eq!(secrets.mask(said.to_owned()), "/visible/********/mcp?mode=readonly: ******** is ********");

        let url: Url = "http://someone:pass%3Aword@host/mcp?key=opensesame".parse().unwrap();
        let declared = Sensitive::secret(url.as_str());
        let secrets = Secrets::of_http(&declared, &url, &HeaderMap::new());
        assert_eq!(secrets.mask("someone pass:word opensesame host".to_owned()), "******** ******** ******** host");
    }

    #[test]
    fn the_rest_of_a_cut_secret_is_found() {
        let secrets = Secrets::new(["hunter2-hunter3".to_owned(), "swordfish".to_owned()]);
        assert_eq!(secrets.rest_at_front(b"hunter3 and more"), 7);
        assert_eq!(secrets.rest_at_front(b"h swordfish"), 1);
        assert_eq!(secrets.rest_at_front(b"swordfish"), 0);
        assert_eq!(secrets.rest_at_front(b"ordinary"), 0);
    }
}
