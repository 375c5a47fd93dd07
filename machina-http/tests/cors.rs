//! Which pages may use the API from a browser.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use axum::Router;
use axum::routing::get;
use machina_core::Config;
use machina_http::{Extensions, ServerConfig};
use support::{Answer, Server};

const PAGE: &str = "https://app.example";

async fn server(origins: &[&str]) -> Server {
    let cors_allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let config = ServerConfig { cors_allowed_origins, ..ServerConfig::default() };
    let open = get(|| async { ([("access-control-allow-origin", "*")], "for all") });
    let preflight = |_: http::Request<axum::body::Body>| async { ([("access-control-allow-origin", "*")], "") };
    let public = Router::new().route("/v0.1/servers", open.options(preflight));
    let extensions = Extensions::from(Router::new().route("/mine", get(|| async { "mine" }))).public(public);
    Server::with(config, Config::default(), extensions).await
}

async fn preflight(server: &Server, path: &str, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "content-type,if-match,idempotency-key"),
    ];
    server.send("OPTIONS", path, &headers, None).await
}

#[tokio::test]
async fn a_page_that_is_named_may_do_everything() {
    let server = server(&["http://other.example", PAGE]).await;
    for path in ["/api/v1/services", "/api/v1/services/a", "/mine", "/"] {
        let asked = preflight(&server, path, PAGE).await;
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, PAGE), "{path}");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(asked.header("access-control-allow-methods").contains(method), "{method}");
        }
        for header in ["content-type", "if-match", "if-none-match", "idempotency-key", "last-event-id"] {
            assert!(asked.header("access-control-allow-headers").contains(header), "{header}");
        }
        assert_eq!(asked.header("access-control-allow-credentials"), "");
    }
    for (path, status) in [("/api/v1/services", 200), ("/api/v1/services/absent", 404), ("/nothing", 404)] {
        let answer = server.send("GET", path, &[("origin", PAGE)], None).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, PAGE), "{path}");
        let exposed = answer.header("access-control-expose-headers");
        for header in
            ["etag", "link", "location", "x-machina-revision", "x-request-id", "retry-after", "idempotency-replayed"]
        {
            assert!(exposed.contains(header), "{header}: {exposed}");
        }
        let varies = answer.headers.get_all("vary").iter().any(|vary| vary.to_str().unwrap().contains("origin"));
        assert!(varies, "{path}");
    }
}

#[tokio::test]
async fn other_pages_may_nothing() {
    for origins in [&[][..], &[PAGE]] {
        let server = server(origins).await;
        for origin in ["https://evil.example", "http://app.example", "https://app.example.evil.example"] {
            let asked = preflight(&server, "/api/v1/services", origin).await;
            assert_eq!(asked.header("access-control-allow-origin"), "", "{origin}");
            let answer = server.send("GET", "/api/v1/services", &[("origin", origin)], None).await;
            answer.assert_problem(origin, 403, "forbidden");
            assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        }
    }
    let strict = server(&[]).await;
    let answer = strict.send("GET", "/api/v1/services", &[("origin", PAGE)], None).await;
    answer.assert_problem("nobody is named", 403, "forbidden");
}

#[tokio::test]
async fn public_routes_speak_for_themselves() {
    for origins in [&[][..], &[PAGE]] {
        let server = server(origins).await;
        for origin in [PAGE, "https://evil.example"] {
            let answer = server.send("GET", "/v0.1/servers", &[("origin", origin)], None).await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "*"), "{origin}");
            assert!(!answer.header("x-request-id").is_empty());
            let asked = preflight(&server, "/v0.1/servers", origin).await;
            assert_eq!((asked.status, asked.header("access-control-allow-origin")), (200, "*"), "{origin}");
        }
        server.send("GET", "/v0.1/servers", &[("host", "evil.example")], None).await.assert_problem(
            "",
            403,
            "forbidden",
        );
        server.send("DELETE", "/v0.1/servers", &[], None).await.assert_problem("a method", 405, "invalid");
    }
}
