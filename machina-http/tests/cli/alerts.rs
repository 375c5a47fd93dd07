//! `alerts`, asking a server and without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use machina_core::Tasks;
use tokio::net::TcpListener;

use crate::world::{Served, World, text};

/// What stands in the address of the channel, and never in what is printed.
const SECRET: &str = "hunter2hunter2";

/// A server that takes everything and counts it.
struct Sink {
    url: String,
    count: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Sink {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{SECRET}", listener.local_addr().unwrap());
        let (count, tasks) = (Arc::<AtomicUsize>::default(), Tasks::new());
        let counting = Arc::clone(&count);
        let router = Router::new().fallback(move || async move {
            counting.fetch_add(1, Ordering::SeqCst);
        });
        drop(tasks.spawn("sink", async move { axum::serve(listener, router).await.unwrap() }));
        Self { url, count, tasks }
    }

    fn configuration(&self, more: &str) -> String {
        format!("[[alerts.channels]]\nname = \"hook\"\nwebhook = {{ url = \"{}\" }}\n{more}", self.url)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// A channel whose address stands in a variable that is not set.
const UNSET: &str = "[[alerts.channels]]\nname = \"chat\"\nslack = { url = \"${env:NO_SUCH_HOOK}\" }\n";

#[tokio::test]
async fn channels_are_tried_out_without_a_server() {
    let (world, sink) = (World::new(), Sink::new().await);
    let path = world.write("machina.toml", &sink.configuration(UNSET));
    let test = ["alerts", "test", "--config", text(&path)];
    let ran = world.on_store(&test).await.ended(1);
    let ran = ran.says(&["hook (webhook) took the message in ", "chat (unusable) did not take it: ", "NO_SUCH_HOOK"]);
    assert!(!format!("{ran:?}").contains(SECRET) && sink.count() == 1, "{ran:?}");
    let one = world.on_store(&[&test[..], &["--channel", "hook", "--json"]].concat()).await.ended(0).json();
    assert_eq!((&one[0]["channel"], &one[0]["delivered"]), (&"hook".into(), &true.into()), "{one}");
    world.on_store(&[&test[..], &["--channel", "x"]].concat()).await.ended(2).complains(&["channel", "hook, chat"]);
    let shown = world.on_store(&["alerts", "list", "--config", text(&path)]).await.ended(0);
    shown.says(&["No alert fires.", "hook", "webhook"]).complains(&["no server runs"]);
    world.on_store(&["alerts", "test"]).await.ended(0).says(&["There are no channels"]);
}

#[tokio::test]
async fn a_server_does_not_start_with_a_channel_that_cannot_work() {
    let (world, sink) = (World::new(), Sink::new().await);
    let path = world.write("machina.toml", &sink.configuration(UNSET));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--store", "memory:", "--config", text(&path)];
    world.run(&serve).await.ended(2).complains(&["alerts.channels[1].slack.url", "NO_SUCH_HOOK"]);
}

#[tokio::test]
async fn a_server_is_asked_for_its_alerts() {
    let (world, sink) = (World::new(), Sink::new().await);
    let path = world.write("machina.toml", &sink.configuration(""));
    let served = Served::start(&world, &["--config", text(&path)]).await;
    let url = served.url.clone();
    world.run(&["alerts", "--url", &url]).await.ended(0).says(&["No alert fires.", "hook"]);
    world.run(&["alerts", "list", "--url", &url]).await.ended(0).says(&["webhook"]);
    let ran = world.run(&["alerts", "test", "--url", &url]).await.ended(0).says(&["took the message"]);
    assert!(!format!("{ran:?}").contains(SECRET) && sink.count() == 1, "{ran:?}");
    let report = world.run(&["alerts", "--json", "--url", &url]).await.ended(0).json();
    assert_eq!((&report["firing"], &report["channels"][0]["name"]), (&serde_json::json!([]), &"hook".into()));
    assert!(!served.log().contains(SECRET), "{}", served.log());
    served.signal("INT").await;
    assert_eq!(served.ended().await, 0);
}

#[tokio::test]
async fn wrong_channels_and_hours_are_named_and_secrets_are_not() {
    let world = World::new();
    let wrong = format!(
        "[alerts]\ndown_after = \"2d\"\nquiet_hours = [{{ from = \"22:00\", to = \"07:00\", time_zone = \"Mars\" }}]\n\
         [[alerts.channels]]\nname = \"a\"\nslack = {{ url = \"{SECRET}\" }}\n\
         [[alerts.channels]]\nname = \"b\"\nwebhok = {{ url = \"http://{SECRET}\" }}\n"
    );
    let path = world.write("wrong.toml", &wrong);
    let ran = world.run(&["config", "check", text(&path)]).await.ended(2);
    assert!(!ran.stderr.contains(SECRET), "{ran:?}");
    ran.complains(&[
        "alerts.down_after",
        "alerts.quiet_hours[0].time_zone",
        "alerts.channels[0].slack.url",
        "alerts.channels[1]",
        "webhok",
        "wrong.toml:2",
    ]);
    let (sink, right) = (Sink::new().await, World::new());
    let path = right.write("machina.toml", &sink.configuration(""));
    let printed = right.run(&["config", "print", "--config", text(&path)]).await.ended(0);
    assert!(!printed.stdout.contains(SECRET), "{printed:?}");
    printed.says(&["channels = [{ ", "********"]);
}
