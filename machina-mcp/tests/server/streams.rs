//! Hosts that are told of changes: on the stream of a session, and by
//! subscriptions, in front of rmcp's client and of one that sees every byte.

use std::time::Duration;

use machina_core::Tasks;
use machina_mcp::server::{Exposure, HttpServerConfig, ToolMode, serve_io};
use rmcp::model::{ServerNotification, SubscriptionFilter};
use rmcp::service::{ClientServiceExt, SubscriptionEnd};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::host::{Bare, Host, legacy, meta, modern};
use crate::served::{Served, Stream, calling, request, serve};
use crate::upstream::{PATIENCE, Registered};

const TOOLS: &str = "notifications/tools/list_changed";
const RESOURCES: &str = "notifications/resources/list_changed";
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const LISTEN: [(&str, &str); 2] = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")];

fn flat() -> HttpServerConfig {
    HttpServerConfig { mode: ToolMode::Flat, ..HttpServerConfig::default() }
}

fn listening(notifications: Value) -> Value {
    let mut params = json!({"_meta": meta()});
    params["notifications"] = notifications;
    json!({"jsonrpc": "2.0", "id": "s-1", "method": "subscriptions/listen", "params": params})
}

async fn subscribe(served: &Served, headers: &[(&str, &str)], notifications: Value) -> Stream {
    let headers: Vec<_> = LISTEN.iter().chain(headers).copied().collect();
    Stream::new(served.post(&headers, &listening(notifications)).await)
}

/// Waits until both lists were told, in whatever order and company.
async fn until_both(stream: &mut Stream) {
    let (mut tools, mut resources) = (false, false);
    while !tools || !resources {
        match &*stream.method().await {
            TOOLS => tools = true,
            RESOURCES => resources = true,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn rmcp_is_told_of_changes_on_the_stream_of_its_session() {
    let served = serve(flat()).await;
    let client = served.client(legacy()).await;
    let capabilities = &client.peer_info().unwrap().capabilities;
    assert_eq!(capabilities.tools.as_ref().unwrap().list_changed, Some(true));
    assert_eq!(capabilities.resources.as_ref().unwrap().list_changed, Some(true));
    served.register("late").await;
    client.service().until_told("tools").await;
    client.service().until_told("resources").await;
    served.registered.machina.deregister("late").await.unwrap();
    client.service().until_told("tools").await;
}

#[tokio::test]
async fn rmcp_subscribes_over_http_and_pipes_and_hears_what_it_asked_for_and_no_more() {
    let served = serve(flat()).await;
    let tasks = Tasks::new();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (scoped, exposure) = (served.registered.scoped(), Exposure { mode: ToolMode::Flat, ..Exposure::default() });
    tasks.spawn("serve", async move {
        let (reader, writer) = tokio::io::split(far);
        serve_io(scoped, exposure, reader, writer).await.unwrap();
    });
    let piped = timeout(PATIENCE, Host::default().serve_with_lifecycle(near, modern())).await.unwrap().unwrap();
    for (round, client) in [served.client(modern()).await, piped].into_iter().enumerate() {
        let capabilities = &client.peer_info().unwrap().capabilities;
        assert_eq!(capabilities.tools.as_ref().unwrap().list_changed, Some(true));
        let filter = SubscriptionFilter::builder().tools_list_changed().resource_subscriptions(["file:///a"]).build();
        let mut subscription = timeout(PATIENCE, client.listen(filter)).await.unwrap().unwrap();
        assert_eq!(subscription.acknowledged(), &SubscriptionFilter::builder().tools_list_changed().build());
        served.register(&format!("late-{round}")).await;
        let told = timeout(PATIENCE, subscription.next()).await.unwrap().unwrap();
        assert!(matches!(told, Some(ServerNotification::ToolListChangedNotification(_))), "{told:?}");
        let more = timeout(Duration::from_millis(300), subscription.next()).await;
        assert!(!matches!(more, Ok(Ok(Some(ServerNotification::ResourceListChangedNotification(_))))), "{more:?}");
        subscription.cancel().await.unwrap();
        assert_eq!(subscription.end(), Some(&SubscriptionEnd::Cancelled));
        client.list_all_tools().await.unwrap();
    }
    tasks.cancel();
}

#[tokio::test]
async fn a_session_is_told_once_of_what_it_missed_and_of_what_comes() {
    let served = serve(flat()).await;
    let session = served.session("mcp").await;
    let headers = [("mcp-session-id", session.as_str())];
    // Between `initialize` and the stream.
    served.register("early").await;
    let mut first = served.stream(&headers).await;
    assert_eq!(
        (first.status(), &first.response.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    until_both(&mut first).await;
    while !first.is_silent().await {}

    // A second stream ends the first, and tells nothing twice.
    let mut second = served.stream(&headers).await;
    assert_eq!(first.next().await, None);
    assert!(second.is_silent().await);
    drop(second);
    served.register("late").await;
    let mut third = served.stream(&headers).await;
    until_both(&mut third).await;

    let delete = reqwest::Client::new().delete(format!("http://{}/mcp", served.address));
    assert_eq!(delete.header("mcp-session-id", &session).send().await.unwrap().status(), 204);
    while third.next().await.is_some() {}
    assert_eq!(served.stream(&headers).await.status(), 404);
}

#[tokio::test]
async fn changes_that_nobody_reads_are_one() {
    let served = serve(flat()).await;
    let session = served.session("mcp").await;
    let headers = [("mcp-session-id", session.as_str())];
    for name in ["a", "b", "c", "d"] {
        served.register(name).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        served.until_known(name).await;
    }
    let mut stream = served.stream(&headers).await;
    let mut told = vec![stream.method().await, stream.method().await];
    told.sort();
    assert_eq!(told, [RESOURCES, TOOLS]);
    assert!(stream.is_silent().await);
}

#[tokio::test]
async fn a_stream_is_refused_to_whom_it_is_not_for() {
    let served = serve(HttpServerConfig::default()).await;
    let session = served.session("alice").await;
    let of_alice = [("mcp-session-id", session.as_str()), ("x-user", "alice")];
    let with = |more: (&'static str, &'static str)| [of_alice[0], of_alice[1], more];
    assert_eq!(served.stream(&[]).await.status(), 405);
    assert_eq!(served.stream(&[("mcp-session-id", "unknown")]).await.status(), 404);
    assert_eq!(served.stream(&[of_alice[0], ("x-user", "bob")]).await.status(), 404);
    assert_eq!(served.stream(&[of_alice[0], ("x-user", "nobody")]).await.status(), 401);
    assert_eq!(served.stream(&with(("accept", "application/json"))).await.status(), 406);
    assert_eq!(served.stream(&with(("mcp-protocol-version", "2026-07-28"))).await.status(), 405);
    assert_eq!(served.stream(&with(("mcp-protocol-version", "1999-01-01"))).await.status(), 400);
    assert_eq!(served.stream(&with(("origin", "https://evil.example"))).await.status(), 403);
    assert_eq!(served.stream(&of_alice).await.status(), 200);
}

#[tokio::test]
async fn streams_are_bounded_give_their_place_back_and_keep_no_call_from_running() {
    let served = serve(HttpServerConfig { streams_max: 2, requests_max: 1, ..flat() }).await;
    let session = served.session("mcp").await;
    let headers = [("mcp-session-id", session.as_str())];
    let stream = served.stream(&headers).await;
    let mut subscription = subscribe(&served, &[], json!({})).await;
    assert_eq!(subscription.method().await, ACKNOWLEDGED);
    let refused = subscribe(&served, &[], json!({})).await;
    assert_eq!((refused.status(), &refused.response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert!(refused.response.text().await.unwrap().contains("s-1"), "the refusal is an answer to the request");
    let other = served.session("mcp").await;
    assert_eq!(served.stream(&[("mcp-session-id", other.as_str())]).await.status(), 503);
    let call = request("tools/call", json!({"name": "fixture__echo"}));
    assert_eq!(served.status(&[], &call).await, 200);
    drop((stream, subscription));
    let again = async {
        while subscribe(&served, &[], json!({})).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the places are free again");
}

#[tokio::test]
async fn a_session_with_a_stream_is_not_idle_and_a_silent_stream_shows_signs_of_life() {
    let short = Duration::from_secs(1);
    let served = serve(HttpServerConfig { session_idle: short, keep_alive: short / 4, ..flat() }).await;
    let session = served.session("mcp").await;
    let headers = [("mcp-session-id", session.as_str())];
    let mut stream = served.stream(&headers).await;
    assert_eq!(timeout(PATIENCE, stream.response.chunk()).await.unwrap().unwrap().unwrap(), ": keep-alive\n\n");
    tokio::time::sleep(3 * short).await;
    assert_eq!(served.status(&headers, &request("ping", json!({}))).await, 200);
    drop(stream);
    let forgotten = async {
        loop {
            tokio::time::sleep(2 * short).await;
            if served.status(&headers, &request("ping", json!({}))).await == 404 {
                return;
            }
        }
    };
    timeout(PATIENCE, forgotten).await.expect("an idle session is forgotten");
}

#[tokio::test]
async fn a_subscription_says_first_what_is_honoured_and_names_itself_in_every_message() {
    let served = serve(flat()).await;
    let wanted = json!({"resourcesListChanged": true, "toolsListChanged": false, "resourceSubscriptions": ["x:y"]});
    let mut stream = subscribe(&served, &[], wanted).await;
    assert_eq!(stream.response.headers()["content-type"], "text/event-stream");
    let named = |message: &Value| message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "s-1";
    let first = stream.next().await.unwrap();
    assert_eq!(
        (&first["method"], &first["params"]["notifications"]),
        (&json!(ACKNOWLEDGED), &json!({"resourcesListChanged": true}))
    );
    assert!(named(&first), "{first}");
    served.register("late").await;
    let told = stream.next().await.unwrap();
    assert!(told["method"] == RESOURCES && named(&told), "{told}");
    while !stream.is_silent().await {}

    assert!(served.endpoint.drain(Duration::from_secs(5)).await);
    let last = stream.next().await.unwrap();
    assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!("s-1"), &json!("complete")));
    assert_eq!(last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "s-1");
    assert_eq!(stream.next().await, None);
    assert_eq!(subscribe(&served, &[], json!({})).await.status(), 503);
    assert_eq!(served.status(&[], &request("tools/call", json!({"name": "fixture__echo"}))).await, 200);
}

#[tokio::test]
async fn a_subscription_that_cannot_be_is_refused() {
    let served = serve(flat()).await;
    for (headers, wanted, status, code) in [
        (vec![], json!(null), 400, -32602),
        (vec![], json!({"toolsListChanged": 1}), 400, -32602),
        (vec![("accept", "application/json")], json!({}), 406, -32600),
    ] {
        let refused = subscribe(&served, &headers, wanted).await;
        assert_eq!(refused.status(), status, "{headers:?}");
        let answer: Value = serde_json::from_str(&refused.response.text().await.unwrap()).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("s-1"), &json!(code)), "{answer}");
    }
    let legacy = request("subscriptions/listen", json!({"notifications": {}}));
    assert_eq!(served.status(&[], &legacy).await, 200, "an error is an answer in the older era");
}

#[tokio::test]
async fn where_changes_cannot_be_told_none_are_promised() {
    let served = serve(flat()).await;
    let acme = [("x-user", "acme")];
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bare"}});
    let response = served.post(&acme, &request("initialize", params)).await;
    let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    let hello: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(hello["result"]["capabilities"]["tools"], json!({}));
    let mut stream = served.stream(&[acme[0], ("mcp-session-id", &session)]).await;
    let mut subscription = subscribe(&served, &acme, json!({"toolsListChanged": true})).await;
    assert_eq!(subscription.next().await.unwrap()["params"]["notifications"], json!({}));
    served.register("late").await;
    assert!(stream.is_silent().await && subscription.is_silent().await);
}

#[tokio::test]
async fn on_a_pipe_subscriptions_share_the_channel_and_end_when_cancelled_or_when_it_ends() {
    let registered = Registered::open().await;
    let tasks = Tasks::new();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let scoped = registered.scoped();
    tasks.spawn("serve", async move {
        let (reader, writer) = tokio::io::split(far);
        serve_io(scoped, Exposure { mode: ToolMode::Flat, ..Exposure::default() }, reader, writer).await.unwrap();
    });
    let mut bare = Bare::new(near);
    let id = |message: &Value| message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    for subscription in 0..16 {
        let mut listen = listening(json!({"toolsListChanged": true}));
        listen["id"] = json!(subscription);
        bare.send(&listen.to_string()).await;
        let acknowledged = bare.next().await.unwrap();
        assert_eq!((&acknowledged["method"], id(&acknowledged)), (&json!(ACKNOWLEDGED), json!(subscription)));
    }
    bare.send(&listening(json!({})).to_string()).await;
    assert_eq!(bare.next().await.unwrap()["error"]["code"], -32000, "more than 16 are too many");
    for subscription in 1..16 {
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": subscription}});
        bare.send(&cancel.to_string()).await;
    }
    let mut echo = calling("echo", json!({"_meta": meta(), "name": "fixture__echo"}));
    echo["id"] = json!("call");
    bare.send(&echo.to_string()).await;
    assert_eq!(bare.next().await.unwrap()["result"]["resultType"], "complete", "calls go on meanwhile");
    let spec = json!({"name": "late"}).to_string();
    let spec = machina_core::ServiceSpec::parse(&spec).unwrap();
    let instance = machina_core::Instance::new(machina_core::Endpoint::InProcess);
    registered.machina.register(spec.instance(instance)).await.unwrap();
    let told = bare.next().await.unwrap();
    assert_eq!((&told["method"], id(&told)), (&json!(TOOLS), json!(0)), "only what is still subscribed is told");
    tokio::io::AsyncWriteExt::shutdown(&mut bare.writer).await.unwrap();
    let last = bare.next().await.unwrap();
    assert_eq!(
        (&last["id"], &last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(bare.next().await, None);
}

#[tokio::test]
async fn when_streams_end_nothing_of_them_is_left() {
    let served = serve(flat()).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let mut streams = Vec::new();
    for _ in 0..20 {
        let session = served.session("mcp").await;
        streams.push(served.stream(&[("mcp-session-id", &session)]).await);
        let mut subscription = subscribe(&served, &[], json!({"toolsListChanged": true})).await;
        assert_eq!(subscription.method().await, ACKNOWLEDGED);
        streams.push(subscription);
    }
    assert!(alive() > before);
    assert!(served.endpoint.drain(Duration::from_secs(5)).await);
    for mut stream in streams {
        while stream.next().await.is_some() {}
    }
    assert!(served.endpoint.close(Duration::from_secs(5)).await);
    let none = async {
        while alive() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, none).await.unwrap_or_else(|_| panic!("{} tasks are left of {before}", alive()));
}
