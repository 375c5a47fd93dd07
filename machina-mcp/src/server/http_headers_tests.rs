use super::*;
use crate::server::rpc::{INVALID_PARAMS, Id, UNSUPPORTED_VERSION, object};
use serde_json::json;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn source(pairs: &[(&str, &str)], config: &HttpServerConfig) -> Option<StatusCode> {
    check_source(&Uri::from_static("/mcp"), &headers(pairs), config).err().map(|refusal| refusal.status())
}

#[test]
fn only_allowed_hosts_are_served() {
    let config = HttpServerConfig::default();
    for host in ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:9"] {
        assert_eq!(source(&[("host", host)], &config), None, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "10.0.0.1"] {
        assert_eq!(source(&[("host", host)], &config), Some(StatusCode::FORBIDDEN), "{host}");
    }
    assert_eq!(source(&[], &config), Some(StatusCode::BAD_REQUEST));
    assert_eq!(source(&[("host", "a b")], &config), Some(StatusCode::BAD_REQUEST));
    let named = HttpServerConfig { allowed_hosts: vec!["mcp.example:443".into()], ..HttpServerConfig::default() };
    assert_eq!(source(&[("host", "mcp.example:443")], &named), None);
    assert_eq!(source(&[("host", "mcp.example:80")], &named), Some(StatusCode::FORBIDDEN));
    let any = HttpServerConfig { allowed_hosts: vec!["*".into()], ..HttpServerConfig::default() };
    assert_eq!(source(&[("host", "mcp.example")], &any), None);
    let none = HttpServerConfig { allowed_hosts: Vec::new(), ..HttpServerConfig::default() };
    assert_eq!(source(&[("host", "localhost")], &none), Some(StatusCode::FORBIDDEN));
}

#[test]
fn only_pages_of_this_server_and_allowed_ones_may_ask() {
    let config =
        HttpServerConfig { allowed_origins: vec!["https://app.example".into()], ..HttpServerConfig::default() };
    let from = |origin: &str| source(&[("host", "127.0.0.1:8000"), ("origin", origin)], &config);
    assert_eq!(from("http://127.0.0.1:8000"), None);
    assert_eq!(from("https://app.example"), None);
    for origin in ["http://127.0.0.1:3000", "https://evil.example", "null", "", "https://app.example.evil.example"] {
        assert_eq!(from(origin), Some(StatusCode::FORBIDDEN), "{origin}");
    }
}

#[test]
fn a_host_sends_json_and_says_what_it_reads() {
    let media = |accept: &[&str]| {
        let mut pairs = vec![("content-type", "application/json; charset=utf-8")];
        pairs.extend(accept.iter().map(|value| ("accept", *value)));
        check_media(&headers(&pairs)).map_err(|refusal| refusal.status())
    };
    let both = Accepts { json: true, events: true };
    assert_eq!(media(&["application/json, text/event-stream"]), Ok(both));
    assert_eq!(media(&["application/json", "Text/Event-Stream; q=0.5"]), Ok(both));
    assert_eq!(media(&["*/*"]), Ok(Accepts { json: true, events: false }));
    assert_eq!(media(&[]), Ok(Accepts { json: true, events: false }));
    assert_eq!(media(&["text/event-stream, application/json;q=0"]), Ok(Accepts { json: false, events: true }));
    assert_eq!(media(&["text/html"]), Err(StatusCode::NOT_ACCEPTABLE));
    let refused = check_media(&headers(&[("content-type", "text/plain")])).unwrap_err();
    assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

fn modern(method: &str, params: Value) -> Request {
    let mut params = object(params);
    let meta = json!({"io.modelcontextprotocol/protocolVersion": MODERN});
    params.insert("_meta".into(), meta);
    Request { id: Id::of(&json!(1)).unwrap(), method: method.to_owned(), params }
}

#[test]
fn headers_of_the_stateless_era_repeat_the_body() {
    let call = modern("tools/call", json!({"name": "grün"}));
    let right = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "=?base64?Z3LDvG4=?=")];
    assert_eq!(check_request(&headers(&right), &call), Ok(()));
    let wrong: [&[(&str, &str)]; 7] = [
        &right[1..],
        &right[..2],
        &[right[0], right[2]],
        &[("mcp-protocol-version", "2025-11-25"), right[1], right[2]],
        &[right[0], ("mcp-method", "tools/list"), right[2]],
        &[right[0], right[1], ("mcp-name", "=?base64?%?=")],
        &[right[0], right[1], right[1], right[2]],
    ];
    for pairs in wrong {
        let fault = check_request(&headers(pairs), &call).unwrap_err();
        assert_eq!((fault.code, fault.malformed), (HEADER_MISMATCH, true), "{pairs:?}");
    }
}

#[test]
fn headers_of_the_older_era_name_a_known_revision() {
    let plain = |method: &str, params: Value| Request {
        id: Id::of(&json!(1)).unwrap(),
        method: method.to_owned(),
        params: object(params),
    };
    let list = plain("tools/list", json!({}));
    let code = |pairs: &[(&str, &str)], request: &Request| {
        check_request(&headers(pairs), request).err().map(|fault| fault.code)
    };
    assert_eq!(code(&[], &list), None);
    assert_eq!(code(&[("mcp-protocol-version", "2025-06-18")], &list), None);
    assert_eq!(code(&[("mcp-protocol-version", "1999-01-01")], &list), Some(UNSUPPORTED_VERSION));
    assert_eq!(code(&[("mcp-protocol-version", MODERN)], &list), Some(INVALID_PARAMS));
    let hello = plain("initialize", json!({"protocolVersion": "2025-11-25"}));
    assert_eq!(code(&[("mcp-protocol-version", "2025-11-25")], &hello), None);
    assert_eq!(code(&[("mcp-protocol-version", "2025-06-18")], &hello), Some(INVALID_REQUEST));
}
