//! Several real `machina serve` over one real PostgreSQL: T20 to T23.

mod field;
mod latency;
mod outage;
mod partition;
mod postgres;
mod wakes;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use machina_tests::{MachinaProcess, wait_until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::field::{Field, WHO};
pub(crate) use self::latency::run as latency;
pub(crate) use self::outage::run as outage;
pub(crate) use self::partition::run as partition;
use self::postgres::Postgres;
pub(crate) use self::wakes::run as wakes;
use self::wire::Wire;

/// How many replicas there are, and what they are called.
const REPLICAS: usize = 3;
const NAMES: [&str; REPLICAS] = ["a", "b", "c"];

/// How long the replicas may take to agree at the start.
const SETTLING: Duration = Duration::from_secs(60);

/// The servers are looked at so often that gaps are seen: a twentieth of the time
/// that a replica may be silent.
const INTERVAL: &str = "2s";

/// Replicas, the wires to their store, and what they look after.
struct Rig {
    postgres: Postgres,
    wires: Vec<Wire>,
    replicas: Vec<Option<MachinaProcess>>,
    field: Field,
    servers: usize,
}

impl Rig {
    /// Three replicas that look after so many servers, each a service `s0`, `s1`, ….
    async fn start(servers: usize) -> Self {
        let postgres = Postgres::start();
        let mut rig = Self { postgres, wires: Vec::new(), replicas: Vec::new(), field: Field::start().await, servers };
        for replica in 0..REPLICAS {
            rig.wires.push(Wire::to(rig.postgres.port()).await);
            let process = rig.serve(replica).await;
            rig.replicas.push(Some(process));
        }
        for server in 0..servers {
            let answer = rig.replica(server % REPLICAS).post("/api/v1/services", &rig.service(server)).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        wait_until(SETTLING, "all replicas agree and share the work", async || {
            rig.shared_out().await?;
            rig.disagreement().await.map_or(Ok(()), Err)
        })
        .await;
        rig
    }

    async fn serve(&self, replica: usize) -> MachinaProcess {
        let store = self.postgres.url_at(self.wires[replica].port());
        let variables = [
            ("REPLICA", NAMES[replica]),
            ("MACHINA_EGRESS__ALLOW", r#"["127.0.0.0/8"]"#),
            ("MACHINA_ACCESS__ALLOW_STDIO_REGISTRATION", "true"),
            // Several servers go down at once, and of each it is to be said at once.
            ("MACHINA_HEALTH__SELF_PRESERVATION_PERCENTAGE", "100"),
        ];
        MachinaProcess::serve_replica(&store, &variables).await
    }

    fn service(&self, server: usize) -> Value {
        json!({
            "name": format!("s{server}"),
            "instances": [{"http": {"url": self.field.url(server), "headers": {WHO: "${env:REPLICA}"}}}],
            // One that is down says so at once: who is late is not taken for it.
            "health_policy": {"interval": INTERVAL, "fast_interval": "500ms", "timeout": "10s", "confirm_timeout": "1s",
                "retries": 0, "failure_threshold": 1, "success_threshold": 1, "passive_window": "0s"},
        })
    }

    fn replica(&self, replica: usize) -> &MachinaProcess {
        self.replicas[replica].as_ref().expect("the replica runs")
    }

    /// The state of each service as a replica shows it.
    async fn shown(&self, replica: usize) -> Result<BTreeMap<String, String>, String> {
        let answer = self.replica(replica).get("/api/v1/services?limit=200&name=s*").await;
        let items = answer.body["items"].as_array().ok_or_else(|| format!("{answer:?}"))?;
        let state = |item: &Value| {
            let state = item["health"]["state"].as_str()?.to_owned();
            Some((item["name"].as_str()?.to_owned(), state))
        };
        Ok(items.iter().filter_map(state).collect())
    }

    /// What a replica shows that is not true.
    async fn disagreement(&self) -> Option<String> {
        for (replica, _) in self.replicas.iter().enumerate().filter(|(_, process)| process.is_some()) {
            let shown = match self.shown(replica).await {
                Ok(shown) => shown,
                Err(why) => return Some(why),
            };
            for server in 0..self.servers {
                let wanted = if self.field.is_down(server) { "unhealthy" } else { "healthy" };
                let state = shown.get(&format!("s{server}")).map(String::as_str);
                if state != Some(wanted) {
                    return Some(format!("{} shows s{server} as {state:?}, and it is {wanted}", NAMES[replica]));
                }
            }
        }
        None
    }

    /// Whether every shard has its holder, and nobody more than its share.
    async fn shared_out(&self) -> Result<(), String> {
        let mut held = Vec::new();
        for process in self.replicas.iter().flatten() {
            let ready = process.get("/readyz?verbose").await;
            held.push(ready.body["checks"]["replica"]["shards"].as_u64().ok_or_else(|| format!("{ready:?}"))?);
        }
        let share = 256_u64.div_ceil(held.len() as u64);
        let even = held.iter().sum::<u64>() == 256 && held.iter().all(|shards| *shards <= share);
        if even { Ok(()) } else { Err(format!("the shards are held {held:?}")) }
    }

    /// How long it takes from now until every replica shows what is true.
    async fn converge(&self) -> Duration {
        let begun = Instant::now();
        wait_until(SETTLING, "all replicas agree", async || self.disagreement().await.map_or(Ok(()), Err)).await;
        begun.elapsed()
    }

    /// How many writes the store has refused.
    async fn refused(&self) -> u64 {
        let mut refused = 0;
        for process in self.replicas.iter().flatten() {
            let ready = process.get("/readyz?verbose").await;
            refused += ready.body["checks"]["replica"]["refused_writes"].as_u64().unwrap_or(0);
        }
        refused
    }

    /// Registers a service without instances; `false` if the store is out of reach.
    async fn register(&self, replica: usize, name: &str) -> bool {
        let answer = self.replica(replica).ask(Method::POST, "/api/v1/services", Some(&json!({"name": name}))).await;
        assert!(matches!(answer.status, 201 | 503 | 409), "{name}: {answer:?}");
        answer.status != 503
    }
}
