//! T22: 100 changes a second at one replica, and when the others tell of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use machina_core::Tasks;
use machina_tests::wait_until;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{REPLICAS, Rig, SETTLING};
use crate::Scale;
use crate::report::{Row, quantile, spread};

const TARGET: &str = "p50 ≤ 50 ms, p99 ≤ 250 ms across replicas";
const P50_MAX: Duration = Duration::from_millis(50);
const P99_MAX: Duration = Duration::from_millis(250);

/// How long the last ones may be on their way.
const TAIL: Duration = Duration::from_secs(30);

/// How many were answered with each other status.
type Refused = Arc<Mutex<BTreeMap<u16, u32>>>;

type Times = Arc<Mutex<HashMap<(usize, String), Instant>>>;

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let lasting = scale.lasting.unwrap_or(Duration::from_secs(if scale.short { 10 } else { 60 }));
    let rate = scale.rate.unwrap_or(100);
    let rig = Rig::start(3).await;
    let (told, acknowledged, tasks) = (Times::default(), Times::default(), Tasks::new());
    let refused: Refused = Arc::default();
    for replica in 1..REPLICAS {
        let url = format!("{}/api/v1/events", rig.replica(replica).url());
        let events = Client::new().get(url).send().await.and_then(Response::error_for_status);
        let events = events.expect("a replica tells of events");
        tasks.spawn("listen", listen(events, replica, Arc::clone(&told)));
    }
    let (client, begun) = (Client::new(), Instant::now());
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut count = 0;
    while begun.elapsed() < lasting {
        ticks.tick().await;
        let (client, url) = (client.clone(), format!("{}/api/v1/services", rig.replica(0).url()));
        let (acknowledged, refused, name) = (Arc::clone(&acknowledged), Arc::clone(&refused), format!("n{count}"));
        count += 1;
        tasks.spawn("write", async move {
            let answer = client.post(url).json(&json!({"name": name})).send().await;
            let status = answer.map_or(0, |answer| answer.status().as_u16());
            if status == 201 {
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert((0, name), Instant::now());
            } else {
                *refused.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
            }
        });
    }
    let answered = || {
        let refused: u32 = refused.lock().unwrap_or_else(PoisonError::into_inner).values().sum();
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len() + refused as usize
    };
    wait_until(SETTLING, "every write is answered", async || {
        let left = count - answered();
        if left == 0 { Ok(()) } else { Err(format!("{left} are not")) }
    })
    .await;
    all_told(&acknowledged, &told).await;
    let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    row(&acknowledged, &told, (count, refused), lasting)
}

/// Waits until every replica has told of everything, or the time is over.
async fn all_told(acknowledged: &Times, told: &Times) {
    let begun = Instant::now();
    while begun.elapsed() < TAIL && !untold(acknowledged, told).is_empty() {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Which replica has not told of what was acknowledged.
fn untold(acknowledged: &Times, told: &Times) -> Vec<String> {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
    let all = acknowledged.keys().flat_map(|(_, name)| (1..REPLICAS).map(move |replica| (replica, name.clone())));
    let untold = all.filter(|event| !told.contains_key(event));
    untold.map(|(replica, name)| format!("replica {replica} never told of {name}")).collect()
}

/// Notes when a replica tells of a service.
async fn listen(events: Response, replica: usize, told: Times) {
    let (mut stream, mut text) = (events.bytes_stream(), String::new());
    while let Some(Ok(bytes)) = stream.next().await {
        let at = Instant::now();
        text.push_str(&String::from_utf8_lossy(&bytes));
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<Value>(data).ok())
            else {
                continue;
            };
            if let (Some("service_registered"), Some(name)) = (event["type"].as_str(), event["service"].as_str()) {
                told.lock().unwrap_or_else(PoisonError::into_inner).entry((replica, name.to_owned())).or_insert(at);
            }
        }
    }
}

fn row(acknowledged: &Times, told: &Times, (sent, refused): (usize, BTreeMap<u16, u32>), lasting: Duration) -> Row {
    let mut broken = untold(acknowledged, told);
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
    let after = |((_, name), seen): (&(usize, String), &Instant)| {
        acknowledged.get(&(0, name.clone())).map(|at| seen.saturating_duration_since(*at))
    };
    let mut times: Vec<Duration> = told.iter().filter_map(after).collect();
    times.sort_unstable();
    let (half, most) = (quantile(&times, 0.5), quantile(&times, 0.99));
    broken.truncate(20);
    Row {
        name: "T22",
        figure: format!("{} changes in {lasting:?}: {}", acknowledged.len(), spread(times)),
        target: TARGET,
        met: half <= P50_MAX && most <= P99_MAX && refused.is_empty() && broken.is_empty(),
        broken,
        details: vec![format!(
            "{sent} registrations sent to one of three replicas; from the acknowledgement there to the event at the others; \
             not taken, by status: {refused:?}"
        )],
    }
}
