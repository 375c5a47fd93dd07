//! What an HTTP status says about a request: the repeat table's phases, read off
//! the status line. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use machina_core::{Error, ErrorKind, Phase};

use super::link::{rejected, shortened};
use super::wire::Incoming;

/// Waits longer than this are not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// An answer that is no success.
pub(crate) struct Refusal<'a> {
    /// The method of the request.
    pub(crate) method: &'a str,
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    /// The beginning of the body.
    pub(crate) body: &'a [u8],
    /// Whether the request named a session.
    pub(crate) in_session: bool,
}

impl Refusal<'_> {
    /// Whether the server no longer knows the session that the request named.
    pub(crate) fn ends_session(&self) -> bool {
        let names_session = || String::from_utf8_lossy(self.body).to_ascii_lowercase().contains("session");
        self.in_session
            && (self.status == StatusCode::NOT_FOUND || self.status == StatusCode::BAD_REQUEST && names_session())
    }

    /// The error that the caller gets.
    pub(crate) fn error(&self) -> Error {
        let Self { method, status, retry_after, .. } = *self;
        let say = |what: &str| format!("{method} was answered with HTTP {}: {what}", status.as_u16());
        let error = match status.as_u16() {
            401 => Error::rejected(say("credentials are missing or wrong")).at(Phase::Refused),
            403 => Error::rejected(say("the credentials do not suffice, or this address is not accepted"))
                .at(Phase::Refused),
            429 => Error::overloaded(say("too many requests")).at(Phase::Refused),
            503 if retry_after.is_some() => Error::overloaded(say("not now")).at(Phase::Refused),
            _ if self.ends_session() => {
                Error::unreachable(say("the server no longer knows the session")).at(Phase::Refused)
            }
            300..=399 => Error::rejected(say("redirects are not followed; declare the new address")).at(Phase::Refused),
            502..=504 => Error::lost(say("the outcome is unknown")).at(Phase::MaybeExecuted),
            _ => self.by_body(&say),
        };
        let error = error.with(|c| c.upstream_status = Some(status.as_u16()));
        match (retry_after, error.kind()) {
            (Some(after), ErrorKind::Overloaded) => error.retry_after(after),
            _ => error,
        }
    }

    /// A status that says little: an error of the protocol in the body says more.
    fn by_body(&self, say: &dyn Fn(&str) -> String) -> Error {
        for message in Incoming::parse(self.body) {
            if let Incoming::Response { outcome: Err(error), .. } = message {
                return rejected(self.method, &error);
            }
        }
        let text = shortened(&String::from_utf8_lossy(self.body));
        let what = if text.is_empty() || text.starts_with('<') { "no reason given".to_owned() } else { text };
        if self.status.is_server_error() {
            return Error::lost(say(&what)).at(Phase::MaybeExecuted);
        }
        Error::rejected(say(&what)).at(Phase::Refused)
    }
}

/// How long the header `Retry-After` asks to wait: seconds, or until a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::Outcome;

    fn error(status: u16, retry_after: Option<u64>, body: &str, in_session: bool) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        let retry_after = retry_after.map(Duration::from_secs);
        Refusal { method: "tools/call", status, retry_after, body: body.as_bytes(), in_session }.error()
    }

    #[test]
    fn every_status_has_its_place_in_the_repeat_table() {
        use ErrorKind::{Lost, Overloaded, Rejected, Unreachable};
        use Phase::{Answered, MaybeExecuted, Refused};
        let rpc = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"bad"}}"#;
        let mismatch = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"bad"}}"#;
        let no_session = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID"}}"#;
        let cases = [
            (401, None, "", false, Rejected, Refused),
            (403, None, rpc, false, Rejected, Refused),
            (429, None, "", false, Overloaded, Refused),
            (503, Some(3), "", false, Overloaded, Refused),
            (503, None, "", false, Lost, MaybeExecuted),
            (502, None, "", false, Lost, MaybeExecuted),
            (504, None, rpc, false, Lost, MaybeExecuted),
            (500, None, "<html>", false, Lost, MaybeExecuted),
            (500, None, rpc, false, Rejected, Answered),
            (404, None, "", true, Unreachable, Refused),
            (404, None, "", false, Rejected, Refused),
            (400, None, no_session, true, Unreachable, Refused),
            (400, None, rpc, true, Rejected, Answered),
            (400, None, mismatch, false, Rejected, Refused),
            (400, None, "what?", true, Rejected, Refused),
            (405, None, "", false, Rejected, Refused),
            (307, None, "", false, Rejected, Refused),
        ];
        for (status, after, body, in_session, kind, phase) in cases {
            let error = error(status, after, body, in_session);
            assert_eq!((error.kind(), error.context().phase), (kind, Some(phase)), "{status} {body}");
            assert_eq!(error.context().upstream_status, Some(status));
        }
        assert_eq!(error(503, Some(3), "", false).context().retry_after_ms, Some(3_000));
        assert_eq!(error(504, None, "", false).context().outcome, Some(Outcome::Unknown));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let wait = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Sat, 21 Nov 2026 00:00:09 GMT"), Some(9));
        assert_eq!(wait("Sat, 21 Nov 2020 00:00:09 GMT"), Some(0));
        assert_eq!(wait("99999999"), Some(3_600));
        assert_eq!(wait("soon"), None);
    }
}
