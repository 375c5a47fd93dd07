//! The farm itself: it fails as it is told, for real, and counts right.

use std::io::ErrorKind;
use std::time::Duration;

use machina_tests::farm::{Behaviour, Class, Cut, End, Executed, Order, Side};
use machina_tests::{Farm, wait_until, wait_until_gone};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(10);
/// How long it is waited for what must not come.
const NEVER: Duration = Duration::from_millis(300);
/// An instance of each era, and whether it answers with events.
const MODERN_JSON: usize = 0;
const LEGACY_JSON: usize = 1;
const MODERN_EVENTS: usize = 2;

fn request(id: &str, class: Class, ms: u64, cut: Option<Cut>) -> Value {
    let mut arguments = json!({"id": id, "ms": ms});
    if let Some(cut) = cut {
        arguments["cut"] = cut.to_string().into();
    }
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
        "name": class.tool(), "arguments": arguments,
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}})
}

async fn ask(url: &str, body: &Value) -> reqwest::Result<Response> {
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    client.post(url).json(body).send().await
}

async fn append(farm: &Farm, instance: usize, id: &str) -> reqwest::Result<Response> {
    ask(&farm.url(instance), &request(id, Class::NotRepeatable, 0, None)).await
}

async fn order(farm: &Farm, instance: usize, behaviour: Behaviour) -> u32 {
    let in_flight = farm.order(&[Order { instance, behaviour }]).await;
    in_flight[0][&Class::NotRepeatable]
}

/// A connection to an instance on which `body` was posted.
async fn posted(farm: &Farm, instance: usize, body: &str) -> TcpStream {
    let url = farm.url(instance);
    let authority = url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let head = format!("POST /mcp HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream
}

/// Everything that comes, and how it ends.
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut read = Vec::new();
    let end = timeout(SOON, stream.read_to_end(&mut read)).await.expect("the connection ends");
    (read, end.err().map(|error| error.kind()))
}

#[tokio::test]
async fn every_execution_is_counted_over_all_instances() {
    let farm = Farm::start(6, &[]).await;
    for instance in [MODERN_JSON, MODERN_EVENTS, MODERN_JSON] {
        let answer = append(&farm, instance, "a").await.unwrap().text().await.unwrap();
        assert!(answer.contains("\"text\":\"done\""), "{answer}");
    }
    ask(&farm.url(0), &request("b", Class::ReadOnly, 0, None)).await.unwrap();
    let executed = farm.executions().await;
    assert_eq!(executed.len(), 2, "{executed:?}");
    assert_eq!(executed["a"], Executed { class: Class::NotRepeatable, times: 3 });
    assert_eq!(executed["b"], Executed { class: Class::ReadOnly, times: 1 });
    let unknown = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "no_such_tool", "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}});
    let wrong: Value = ask(&farm.url(0), &unknown).await.unwrap().json().await.unwrap();
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
    assert_eq!(farm.executions().await.len(), 2);
}

#[tokio::test]
async fn a_killed_instance_refuses_and_forgets_its_sessions() {
    let farm = Farm::start(2, &[]).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}});
    let session = async || {
        let answer = ask(&farm.url(LEGACY_JSON), &initialize).await.unwrap();
        answer.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    };
    let ping = async |session: &str| {
        let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"});
        let client = Client::builder().no_proxy().build().unwrap();
        client.post(farm.url(LEGACY_JSON)).header("mcp-session-id", session).json(&ping).send().await
    };
    let first = session().await;
    assert_eq!(ping(&first).await.unwrap().status(), 200);
    let mut flying = posted(&farm, MODERN_JSON, &request("x", Class::NotRepeatable, 60_000, None).to_string()).await;
    wait_until(SOON, "the call is executed", async || {
        if farm.executions().await.contains_key("x") { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    assert_eq!(order(&farm, MODERN_JSON, Behaviour::Refuse).await, 1, "one call is in flight");
    assert_eq!(rest(&mut flying).await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    order(&farm, LEGACY_JSON, Behaviour::Refuse).await;
    let error = ping(&first).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    order(&farm, LEGACY_JSON, Behaviour::Good).await;
    assert_eq!(ping(&first).await.unwrap().status(), 404, "the session died with its process");
    assert_eq!(ping(&session().await).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_silent_instance_takes_what_it_is_given_and_says_nothing() {
    let farm = Farm::start(2, &["--era", "modern"]).await;
    order(&farm, 0, Behaviour::Hang).await;
    order(&farm, 1, Behaviour::Mute).await;
    let body = |id: &str| request(id, Class::NotRepeatable, 0, None).to_string();
    let (mut hangs, mut mute) = (posted(&farm, 0, &body("hangs")).await, posted(&farm, 1, &body("mute")).await);
    for stream in [&mut hangs, &mut mute] {
        assert!(timeout(NEVER, stream.read_u8()).await.is_err(), "nothing comes");
    }
    let executed = wait_until(SOON, "the mute one has executed its call", async || {
        let executed = farm.executions().await;
        if executed.contains_key("mute") { Ok(executed) } else { Err(format!("{executed:?}")) }
    })
    .await;
    assert!(!executed.contains_key("hangs"), "{executed:?}");
    for instance in [0, 1] {
        order(&farm, instance, Behaviour::Good).await;
        assert_eq!(append(&farm, instance, "after").await.unwrap().status(), 200);
    }
    for stream in [&mut hangs, &mut mute] {
        assert_eq!(rest(stream).await, (Vec::new(), Some(ErrorKind::ConnectionReset)), "it is never answered");
    }
}

#[tokio::test]
async fn a_response_is_reset_at_the_byte_and_a_request_is_not_executed() {
    let farm = Farm::start(2, &["--era", "modern"]).await;
    for after in [0, 1, 30, 100] {
        order(&farm, 0, Behaviour::Reset { after }).await;
        let id = format!("response-{after}");
        let mut stream = posted(&farm, 0, &request(&id, Class::NotRepeatable, 0, None).to_string()).await;
        let (read, end) = rest(&mut stream).await;
        assert_eq!((read.len(), end), (after, Some(ErrorKind::ConnectionReset)));
        assert_eq!(farm.executions().await[&id].times, 1);
        order(&farm, 1, Behaviour::Drop { after }).await;
        let mut stream = posted(&farm, 1, &request("dropped", Class::NotRepeatable, 0, None).to_string()).await;
        assert_eq!(rest(&mut stream).await, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    }
    assert!(!farm.executions().await.contains_key("dropped"));
}

#[tokio::test]
async fn only_the_first_attempt_of_a_call_is_cut() {
    let farm = Farm::start(2, &["--era", "modern"]).await;
    for (side, end, executed) in
        [(Side::Request, End::Reset, 1), (Side::Request, End::Close, 1), (Side::Response, End::Close, 2)]
    {
        let (id, cut) = (format!("{side:?}-{end:?}"), Cut { side, after: 20, end });
        let body = request(&id, Class::NotRepeatable, 0, Some(cut));
        let mut stream = posted(&farm, 0, &body.to_string()).await;
        let (read, kind) = rest(&mut stream).await;
        assert_eq!(read.len(), if side == Side::Response { 20 } else { 0 }, "{cut}");
        assert_eq!(kind, (end == End::Reset).then_some(ErrorKind::ConnectionReset), "{cut}");
        assert_eq!(ask(&farm.url(1), &body).await.unwrap().status(), 200, "{cut}");
        assert_eq!(farm.executions().await[&id].times, executed, "{cut}");
    }
}

#[tokio::test]
async fn a_measured_call_says_its_sizes() {
    let farm = Farm::start(3, &["--era", "modern"]).await;
    for instance in [MODERN_JSON, MODERN_EVENTS] {
        let (id, cut) = (format!("measured-{instance}"), Cut { side: Side::Nothing, after: 0, end: End::Close });
        let body = request(&id, Class::ReadOnly, 0, Some(cut)).to_string();
        let mut stream = posted(&farm, instance, &body).await;
        let mut read = vec![0; 4096];
        let count = timeout(SOON, stream.read(&mut read)).await.unwrap().unwrap();
        let sizes = farm.sizes().await[&id];
        assert_eq!(sizes.response, count);
        assert!(sizes.request > body.len() && sizes.answer <= sizes.response, "{sizes:?}");
    }
}

#[tokio::test]
async fn an_instance_goes_mad_in_the_way_it_is_told() {
    let farm = Farm::start(1, &[]).await;
    order(&farm, 0, Behaviour::Garbage).await;
    assert!(append(&farm, 0, "x").await.is_err());
    order(&farm, 0, Behaviour::Wedged).await;
    let page = append(&farm, 0, "x").await.unwrap();
    assert_eq!((page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()), (200, "text/html"));
    for (status, retry_after) in [(401, None), (403, None), (405, None), (429, Some(3))] {
        order(&farm, 0, Behaviour::Status { status, retry_after }).await;
        let refusal = append(&farm, 0, "x").await.unwrap();
        assert_eq!(refusal.status(), status);
        let said = refusal.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(said, retry_after.map(|seconds: u64| seconds.to_string()));
    }
    order(&farm, 0, Behaviour::Flood).await;
    let mut flood = append(&farm, 0, "x").await.unwrap();
    let mut bytes = 0;
    while bytes < 8 * 1024 * 1024 {
        bytes += flood.chunk().await.unwrap().expect("it does not end").len();
    }
    assert!(farm.executions().await.is_empty());
    order(&farm, 0, Behaviour::Slow { ms: 200 }).await;
    let asked = Instant::now();
    assert_eq!(append(&farm, 0, "slow").await.unwrap().status(), 200);
    assert!(asked.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn an_instance_that_flaps_is_there_and_not_there_until_it_is_told_otherwise() {
    let farm = Farm::start(1, &[]).await;
    order(&farm, 0, Behaviour::Flap { up_ms: 100, down_ms: 100 }).await;
    for wanted in [false, true, false, true] {
        wait_until(SOON, "it has turned", async || {
            let is = append(&farm, 0, "x").await.is_ok();
            if is == wanted { Ok(()) } else { Err(format!("it answers: {is}")) }
        })
        .await;
    }
    order(&farm, 0, Behaviour::Good).await;
    tokio::time::sleep(NEVER).await;
    assert_eq!(append(&farm, 0, "x").await.unwrap().status(), 200);
}

#[tokio::test]
#[should_panic(expected = "there is no instance 2; there are 2")]
async fn an_order_to_nobody_is_refused() {
    let farm = Farm::start(2, &[]).await;
    order(&farm, 2, Behaviour::Hang).await;
}

#[tokio::test]
async fn the_farm_ends_with_whoever_started_it() {
    let farm = Farm::start(2, &[]).await;
    let process = farm.process();
    assert!(process.is_alive());
    drop(farm);
    wait_until_gone(SOON, &[process]).await;
}
