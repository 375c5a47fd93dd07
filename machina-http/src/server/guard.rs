//! Keeps pages of foreign sites from using a server on this machine through the
//! browser of its user (DNS rebinding): the server answers only under names that
//! it knows, and only to pages that come from such names.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};
use machina_core::Error;

use super::App;
use super::failure::{Failure, Part};

/// Refuses requests to foreign hosts and from foreign origins.
pub(super) async fn known_hosts_and_origins(State(app): State<App>, request: Request, next: Next) -> Response {
    let (allowed, pages) = (&app.config.allowed_hosts, &app.config.cors_allowed_origins);
    let checked = check_host(request.uri(), request.headers(), allowed);
    match checked.and_then(|()| check_origin(request.headers(), allowed, pages)) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// Refuses requests to foreign hosts: what every page may read.
pub(super) async fn known_hosts(State(app): State<App>, request: Request, next: Next) -> Response {
    match check_host(request.uri(), request.headers(), &app.config.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

fn check_host(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<(), Failure> {
    // Of two, a proxy may have read the other one (RFC 9112, section 3.2).
    for name in [HOST, ORIGIN] {
        if headers.get_all(&name).iter().count() > 1 {
            let field = name.as_str().to_owned();
            return Err(Failure::of(Part::Headers)(Error::invalid_field(field, "must be given once")));
        }
    }
    let authority = match (uri.authority(), headers.get(HOST)) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).ok(),
        (None, None) => None,
    };
    let Some(authority) = authority.filter(is_plain) else {
        let detail = "must be a host name or address, perhaps with a port";
        return Err(Failure::of(Part::Headers)(Error::invalid_field("host", detail)));
    };
    if !is_known(authority.host(), allowed) {
        let message = format!(
            "the server is not known as `{}`: address it as localhost, or add that name to `allowed_hosts`",
            authority.host().escape_debug()
        );
        return Err(Error::forbidden(message).into());
    }
    Ok(())
}

/// Whether there is nothing before the host, and nothing but a number after it:
/// `…/connect` shows the whole of it in a command.
fn is_plain(authority: &Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host());
    port.is_some_and(|port| matches!(port, "" | ":") || authority.port_u16().is_some())
}

fn check_origin(headers: &HeaderMap, allowed: &[String], pages: &[String]) -> Result<(), Failure> {
    let named = |origin: &HeaderValue| pages.iter().any(|page| page.as_bytes() == origin.as_bytes());
    match headers.get(ORIGIN) {
        Some(origin) if !is_known_origin(origin, allowed) && !named(origin) => Err(Error::forbidden(
            "pages of that origin may not use this server: only those from localhost, from `allowed_hosts`, or of \
             `cors_allowed_origins`",
        )
        .into()),
        _ => Ok(()),
    }
}

fn is_known_origin(origin: &HeaderValue, allowed: &[String]) -> bool {
    let url = origin.to_str().ok().and_then(|origin| url::Url::parse(origin).ok());
    url.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| is_known(host, allowed))
    })
}

fn is_known(host: &str, allowed: &[String]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    loopback
        || host.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<(), Failure> {
        check_host(uri, headers, allowed)?;
        check_origin(headers, allowed, &["https://app.example".to_owned()])
    }

    fn verdict(host: Option<&str>, origin: Option<&str>) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        headers.extend(host.map(|host| (HOST, host.parse().unwrap())));
        headers.extend(origin.map(|origin| (ORIGIN, origin.parse().unwrap())));
        check(&Uri::from_static("/x"), &headers, &["machina.example".to_owned()])
    }

    #[test]
    fn known_hosts_and_origins_pass() {
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "127.9.9.9",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "machina.example:1",
        ] {
            assert!(verdict(Some(host), None).is_ok(), "{host}");
        }
        for origin in [
            "http://localhost:3000",
            "https://machina.example",
            "http://[::1]",
            "http://127.0.0.1:8000",
            "https://app.example",
        ] {
            assert!(verdict(Some("localhost"), Some(origin)).is_ok(), "{origin}");
        }
    }

    #[test]
    fn foreign_hosts_and_origins_do_not() {
        let hosts = [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.nip.io",
            "0.0.0.0",
            "u@evil",
            "u@localhost",
            "u:1@localhost:8000",
            "localhost:$(id)",
            "localhost:99999",
            "",
        ];
        for host in hosts {
            assert!(verdict(Some(host), None).is_err(), "{host}");
        }
        assert!(verdict(None, None).is_err());
        let origins = [
            "http://evil.example",
            "http://app.example",
            "https://app.example:444",
            "null",
            "http://localhost.evil.example",
            "file://",
            "chrome-extension://localhost",
        ];
        for origin in origins {
            assert!(verdict(Some("localhost"), Some(origin)).is_err(), "{origin}");
        }
    }

    #[test]
    fn two_hosts_or_two_origins_are_refused() {
        for name in [HOST, ORIGIN] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("localhost"));
            headers.append(&name, HeaderValue::from_static("http://localhost"));
            headers.append(&name, HeaderValue::from_static("evil.example"));
            assert!(check(&Uri::from_static("/x"), &headers, &[]).is_err(), "{name}");
        }
    }

    #[test]
    fn the_address_in_the_request_line_counts_before_the_header() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        assert!(check(&Uri::from_static("http://evil.example/x"), &headers, &[]).is_err());
    }
}
