use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use machina_core::{EgressConfig, ErrorKind, Phase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::client::config::HttpConfig;

const PATIENCE: Duration = Duration::from_secs(10);

fn allowing(networks: &[&str]) -> Reach {
    Reach::outside(&EgressConfig { allow: networks.iter().map(|network| network.parse().unwrap()).collect() })
}

/// A server that counts its connections and gives every request the same answer.
struct Counting {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Counting {
    async fn at(place: &str, answer: &'static str) -> Self {
        let listener = TcpListener::bind(place).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, mut serving) = (Arc::clone(&connections), JoinSet::new());
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                open.spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        Self { address, connections, _serving: serving }
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn name() -> Host<&'static str> {
    Host::Domain("service.example")
}

/// Answers the first question with `first`, and every later one with `then`.
fn rebinding(first: SocketAddr, then: SocketAddr) -> (impl Fn(&str) -> Vec<SocketAddr>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let lookup = move |_: &str| vec![if counter.fetch_add(1, Ordering::SeqCst) == 0 { first } else { then }];
    (lookup, asked)
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_dialled_for_those_outside() {
    let server = Counting::at("127.0.0.1:0", OK).await;
    let (address, port) = (server.address, server.address.port());
    let outside = Guard::new(allowing(&[])).resolving(move |_| vec![address]);
    let error = outside.dial(&name(), port).await.unwrap_err();
    assert_eq!(barred_in(&error), Some(Barred::Outside));
    let inside = Guard::new(Reach::inside()).resolving(move |_| vec![address]);
    drop(inside.dial(&name(), port).await.unwrap());
    drop(Guard::new(allowing(&["127.0.0.1"])).dial(&Host::<&str>::Ipv4([127, 0, 0, 1].into()), port).await.unwrap());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.count(), 2, "only what may be dialled was");
}

#[tokio::test]
async fn of_several_addresses_only_those_are_dialled_that_may_be() {
    let server = Counting::at("127.0.0.1:0", OK).await;
    let elsewhere = Counting::at(&format!("127.0.0.2:{}", server.address.port()), OK).await;
    let both = vec![elsewhere.address, "169.254.169.254:80".parse().unwrap(), server.address];
    let guard = Guard::new(allowing(&["127.0.0.1"])).resolving(move |_| both.clone());
    let stream = guard.dial(&name(), server.address.port()).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), server.address);
    assert_eq!(elsewhere.count(), 0);
    let none = Guard::new(Reach::inside()).resolving(|_| Vec::new());
    assert_eq!(none.dial(&name(), 80).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn what_was_looked_up_once_is_what_is_dialled() {
    let (good, bad) = (Counting::at("127.0.0.1:0", OK).await, Counting::at("127.0.0.2:0", OK).await);
    let (lookup, asked) = rebinding(good.address, bad.address);
    let guard = Guard::new(allowing(&["127.0.0.1"])).resolving(lookup);
    assert_eq!(guard.dial(&name(), 1).await.unwrap().peer_addr().unwrap(), good.address);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let error = guard.dial(&name(), 1).await.unwrap_err();
    assert_eq!((barred_in(&error), bad.count()), (Some(Barred::Outside), 0));
}

#[tokio::test]
async fn a_name_that_is_bound_anew_leads_the_full_client_nowhere() {
    const CLOSING: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let (good, bad) = (Counting::at("127.0.0.1:0", CLOSING).await, Counting::at("127.0.0.2:0", OK).await);
    let (lookup, _) = rebinding(good.address, bad.address);
    let clients = Clients::new(&HttpConfig::default()).unwrap();
    let client = clients.make(&Guard::new(allowing(&["127.0.0.1"])).resolving(lookup)).unwrap();
    // A port in the address wins over that of the resolver.
    let url = |server: &Counting| format!("http://service.example:{}/", server.address.port());
    assert_eq!(client.get(url(&good)).send().await.unwrap().text().await.unwrap(), "ok");
    let error = client.get(url(&bad)).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    assert_eq!((barred_in(&error), bad.count()), (Some(Barred::Outside), 0));
}

#[tokio::test]
async fn an_open_connection_is_not_lent_to_those_of_other_reach() {
    let server = Counting::at("127.0.0.1:0", OK).await;
    let (address, url) = (server.address, format!("http://service.example:{}/", server.address.port()));
    let clients = Clients::new(&HttpConfig::default()).unwrap();
    let client = |reach| clients.with(&Guard::new(reach).resolving(move |_| vec![address])).unwrap();
    for _ in 0..2 {
        let answer = client(allowing(&["127.0.0.0/8"])).get(&url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "ok");
    }
    assert_eq!(server.count(), 1, "the connection is kept");
    let error = client(allowing(&[])).get(&url).send().await.unwrap_err();
    assert_eq!((barred_in(&error), server.count()), (Some(Barred::Outside), 1));
}

#[tokio::test]
async fn the_peer_of_a_connection_is_looked_at_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // Nobody has looked at the address before.
    let clients = Clients::new(&HttpConfig::default()).unwrap();
    let client = clients.make(&Guard::new(allowing(&[]))).unwrap();
    let (sent, read) = tokio::join!(client.get(&url).send(), async {
        let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut read = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it is closed").map(|_| read)
    });
    assert_eq!(barred_in(&sent.unwrap_err()), Some(Barred::Outside));
    assert!(read.is_err() || read.unwrap().is_empty(), "nothing is sent");
    let guard = Guard::new(Reach::inside());
    assert_eq!(barred_in(&guard.check_peer("169.254.169.254:80".parse().unwrap()).unwrap_err()), Some(Barred::Always));
}

#[tokio::test]
async fn redirects_are_answers() {
    let beyond = Counting::at("127.0.0.1:0", OK).await;
    let target = beyond.address;
    let answer: &'static str = Box::leak(
        format!("HTTP/1.1 302 Found\r\nlocation: http://{target}/\r\ncontent-length: 0\r\n\r\n").into_boxed_str(),
    );
    let server = Counting::at("127.0.0.1:0", answer).await;
    let url = Url::parse(&format!("http://{}/", server.address)).unwrap();
    let client = Clients::new(&HttpConfig::default()).unwrap().for_url(&url, &Reach::inside()).unwrap();
    assert_eq!(client.get(url).send().await.unwrap().status(), 302);
    assert_eq!((server.count(), beyond.count()), (1, 0));
}

#[test]
fn an_address_that_tells_by_itself_gets_no_client() {
    let clients = Clients::upgrading(&HttpConfig::default()).unwrap();
    for url in [
        "http://169.254.169.254/",
        "https://2852039166/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://0/",
        concat!("http://", "metadata.google.internal/"),
    ] {
        let url = Url::parse(url).unwrap();
        for reach in [Reach::inside(), allowing(&["0.0.0.0/0", "::/0"])] {
            let error = clients.for_url(&url, &reach).unwrap_err();
            assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)), "{url}");
        }
    }
    let error = clients.for_url(&Url::parse("https://127.1:8443/x?key=secret").unwrap(), &allowing(&[])).unwrap_err();
    assert!(error.message().starts_with("127.0.0.1:8443: leads to"), "{error}");
    assert!(error.context().hard && error.message().contains("egress.allow"), "{error}");
}

#[test]
fn no_more_clients_are_kept_than_are_of_use() {
    let clients = Clients::new(&HttpConfig::default()).unwrap();
    let url = Url::parse("http://a.example/").unwrap();
    for network in 0..20 {
        clients.for_url(&url, &allowing(&[&format!("10.0.{network}.0/24")])).unwrap();
    }
    assert_eq!(clients.kept(), 8);
}

#[test]
fn no_other_part_of_this_crate_opens_a_socket() {
    const OPENS: [&str; 6] =
        ["TcpStream::connect", "TcpSocket", "lookup_host", "to_socket_addrs", "connect_async", "reqwest::get"];
    fn look(directory: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("client/guard") {
                look(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let opens = OPENS.iter().any(|opens| text.contains(opens));
                let client = text.contains("Client::builder()") && !text.contains("guarded(");
                if opens || client || text.contains("Client::new(") {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    let mut found = Vec::new();
    look(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, [""; 0], "these open sockets past the guard");
}

/// The timer that runs for the connection from `local` to `remote`, as the system shows it, and when it fires.
///
/// Both ends are compared: a port may have been that of another connection a moment ago, which is still shown.
#[cfg(target_os = "linux")]
fn timer_of(local: SocketAddr, remote: SocketAddr) -> Option<(String, Duration)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let [from, to] = [local, remote].map(|end| format!(":{:04X}", end.port()));
    let ends = |row: &&str| {
        let mut words = row.split_whitespace().skip(1);
        let mut next_is = |port: &str| words.next().is_some_and(|place| place.ends_with(port));
        next_is(&from) && next_is(&to)
    };
    let (kind, when) = table.lines().find(ends)?.split_whitespace().nth(5)?.split_once(':')?;
    // In hundredths of a second, whatever the system counts in.
    Some((kind.to_owned(), Duration::from_millis(10 * u64::from_str_radix(when, 16).ok()?)))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_other_end_of_a_silent_connection_is_asked_for_a_sign_of_life() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/");
    let config = HttpConfig { keepalive_interval: Duration::from_secs(3), ..HttpConfig::default() };
    let client = Clients::new(&config).unwrap().with(&Guard::new(Reach::inside())).unwrap();
    let listening = client.get(url).send();
    let looking = async {
        let (mut stream, peer) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert_ne!(stream.read(&mut request).await.unwrap(), 0);
        for _ in 0..100 {
            // 2 is the timer of keep-alives; others run while something is under way.
            if let Some((kind, fires)) = timer_of(peer, address).filter(|(kind, _)| kind == "02") {
                return assert!(fires <= config.keepalive_interval, "{kind} {fires:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no keep-alive: {:?}", timer_of(peer, address));
    };
    tokio::select! {
        answer = listening => panic!("{answer:?}"),
        () = looking => {}
    }
}
