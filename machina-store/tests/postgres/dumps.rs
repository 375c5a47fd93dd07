//! The commands of `docs/guide/stores.md` by which a database is backed up and brought
//! back, on a real server and while replicas run.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machina_core::testing::SimConnector;
use machina_core::testing::registry_suite::{call, service, settle};
use machina_core::{CallOptions, ErrorKind, GroupSpec, Machina, Mutation, Result, ServiceSpec, Status};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::asking::section;
use super::schema::Schema;
use super::server::OwnPostgres;

/// How soon after a restoring every replica serves what came back.
const SOON: Duration = Duration::from_secs(10);
const SERVICES: usize = 20;
/// How often a database is brought back while others write.
const TIMES: usize = 5;

/// What becomes of a change that a restoring comes between.
const REFUSED: [ErrorKind; 3] = [ErrorKind::Unavailable, ErrorKind::Conflict, ErrorKind::NotFound];

/// Where the programs of the server are.
async fn programs(url: &str) -> String {
    let mut connection = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    let asked = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
    let found = sqlx::query_scalar(asked).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    found
}

/// The commands, in a directory for the files that they leave.
struct Recipe {
    directory: TempDir,
    url: String,
    path: String,
    commands: Vec<String>,
}

impl Recipe {
    async fn of(url: &str) -> Self {
        let text = section("Backing up PostgreSQL");
        let blocks = text.split("```console\n$ ").skip(1).map(|block| block.split("\n```").next().unwrap());
        let commands: Vec<String> = blocks.flat_map(|block| block.split("\n$ ")).map(str::to_owned).collect();
        assert_eq!(commands.len(), 4, "{commands:?}");
        let others = std::env::var_os("PATH").unwrap().into_string().unwrap();
        let path = format!("{}:{others}", programs(url).await);
        Self { directory: tempfile::tempdir().unwrap(), url: url.to_owned(), path, commands }
    }

    /// With what is to be added for a schema.
    async fn of_schema(url: &str, schema: &str) -> Self {
        let mut recipe = Self::of(url).await;
        for command in &mut recipe.commands {
            for (what, with) in [
                ("pg_dump ", format!("pg_dump --schema={schema} ")),
                ("pg_restore --clean ", format!("pg_restore --schema={schema} --clean ")),
                ("LOCK ", format!("SET search_path = {schema}; LOCK ")),
            ] {
                *command = command.replace(what, &with);
            }
        }
        recipe
    }

    async fn run(&self, command: usize, url: &str) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &self.commands[command]]).current_dir(self.directory.path());
        shell.env("URL", url).env("PATH", &self.path);
        let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", self.commands[command]);
    }

    async fn dump(&self) {
        self.run(0, &self.url).await;
        assert!(self.directory.path().join("machina.dump").exists());
    }

    async fn restore(&self) {
        self.run(1, &self.url).await;
        self.run(2, &self.url).await;
    }

    /// Makes another database of the same server out of it.
    async fn restore_to_empty(&self) -> String {
        Schema::run_at(&self.url, &["CREATE DATABASE empty"]).await;
        let url = format!("{}/empty", self.url.rsplit_once('/').unwrap().0);
        self.run(3, &url).await;
        url
    }
}

async fn machina(url: &str, sim: &SimConnector) -> Machina {
    let backend = machina_store::open(url).await.unwrap();
    Machina::builder().backend(backend).connector(Arc::new(sim.clone())).open().await.unwrap()
}

/// Registers and removes services and calls one, until told to stop.
async fn churn(machina: &Machina, who: &str, stop: &AtomicBool) -> Result<()> {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("churn-{who}-{written}");
        let echo = call("s5", "echo", json!({"text": name}));
        machina.call(&echo, &CallOptions::default()).await?;
        let registered = machina.register(ServiceSpec::new(&name)?).await.map(drop);
        for done in [registered, machina.deregister(&name).await.map(drop)] {
            match done {
                Ok(()) => written += 1,
                // What was written before is gone, and while the tables are made anew nothing is taken.
                Err(error) if REFUSED.contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }
    assert!(written > 0, "nothing was written");
    Ok(())
}

/// What a registry shows, without what [`churn`] makes: services with their titles, and groups.
fn shown(machina: &Machina) -> Vec<String> {
    let view = machina.view();
    let services = view.services().map(|one| format!("{} {:?}", one.service().name(), one.service().spec.title));
    let groups = view.groups().map(|group| format!("group {}", group.name()));
    let mut shown: Vec<_> = services.filter(|one| !one.starts_with("churn-")).chain(groups).collect();
    shown.sort();
    shown
}

async fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    eprintln!("{what}: after {:?}", begun.elapsed());
}

/// Changes much of what was dumped.
async fn change(machina: &Machina) {
    machina.deregister("s0").await.unwrap();
    machina.system().patch("s1", &json!({"title": "another"}), None).await.unwrap();
    machina.register(ServiceSpec::new("late").unwrap()).await.unwrap();
    machina.system().remove_group("g", None).await.unwrap();
}

async fn comes_back(url: &str, recipe: &Recipe) -> Vec<String> {
    let sim = SimConnector::seeded(3);
    let replicas = [machina(url, &sim).await, machina(url, &sim).await];
    let [a, b] = &replicas;
    for index in 0..SERVICES {
        let name = format!("s{index}");
        a.apply(vec![Mutation::Put(service(&name, &[&sim.instance(&name)]))]).await.unwrap();
    }
    a.system().put_group(GroupSpec::new("g").unwrap(), None, true).await.unwrap();
    for index in 0..SERVICES {
        settle(a, &format!("s{index}"), Status::Healthy).await;
    }
    let backup = shown(a);
    recipe.dump().await;
    until("both show what was written", SOON, || shown(b) == backup).await;
    for time in 0..TIMES {
        change(a).await;
        until("both show the changes", SOON, || shown(a) != backup && shown(a) == shown(b)).await;
        let stop = AtomicBool::new(false);
        let restored = async {
            sleep(Duration::from_millis(100)).await;
            recipe.restore().await;
            stop.store(true, Ordering::Relaxed);
        };
        let (churned, other, ()) = tokio::join!(churn(a, "a", &stop), churn(b, "b", &stop), restored);
        churned.and(other).unwrap();
        until(&format!("both show the backup, time {time}"), SOON, || shown(a) == backup && shown(b) == backup).await;
    }
    for (index, machina) in replicas.iter().enumerate() {
        machina.register(ServiceSpec::new(&format!("after-{index}")).unwrap()).await.unwrap();
    }
    let both = |name: &str| replicas.iter().all(|machina| machina.get(name).is_some());
    until("both show what each wrote", SOON, || both("after-0") && both("after-1")).await;
    for index in 0..SERVICES {
        settle(b, &format!("s{index}"), Status::Healthy).await;
    }
    for machina in replicas {
        machina.close().await;
    }
    backup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_comes_back_while_replicas_run() {
    let own = OwnPostgres::start();
    let recipe = Recipe::of(&own.url()).await;
    let backup = comes_back(&own.url(), &recipe).await;
    let other = machina(&recipe.restore_to_empty().await, &SimConnector::seeded(3)).await;
    assert_eq!(shown(&other), backup);
    other.register(ServiceSpec::new("after").unwrap()).await.unwrap();
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_one_schema_comes_back_while_replicas_run() {
    let own = OwnPostgres::start();
    comes_back(&format!("{}?schema=m", own.url()), &Recipe::of_schema(&own.url(), "m").await).await;
}
