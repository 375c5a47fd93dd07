//! T19: what one child does to its pipes must not be felt by the others.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use machina_core::{CallOptions, Config, Instance, Machina, Outcome, ServiceSpec, Tasks};
use machina_tests::farm::Class;
use machina_tests::{Farm, Process, call, open, settled};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::Scale;
use crate::load::{Plan, Tally, offer};
use crate::report::{Row, megabytes, shown};

/// How many others there are of each transport.
const OTHERS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(60);
/// How much more memory Machina may take meanwhile: far less than what is thrown at it.
const GROWTH_MAX_MB: f64 = 64.0;
const LONG_LINE: u64 = 100 * 1024 * 1024;
const LINES_PER_SECOND: u64 = 1_000_000;
/// How many calls a child gets that reads nothing, how large each is, and how long
/// its caller waits.
const UNREAD_PER_SECOND: u32 = 20;
const UNREAD_BYTES: usize = 64 * 1024;
const PATIENCE_WITH_HARM: Duration = Duration::from_secs(2);
/// How long the answer of a child may take that only floods.
const PATIENCE_WITH_FLOOD: Duration = Duration::from_secs(10);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    None,
    ReadsNothing,
    LongLine,
    FloodsStderr,
}

impl Disturbance {
    const ALL: [Self; 4] = [Self::None, Self::ReadsNothing, Self::LongLine, Self::FloodsStderr];

    /// Whose child does it.
    const fn service(self) -> &'static str {
        match self {
            Self::None => "harmless",
            Self::ReadsNothing => "deaf",
            Self::LongLine => "endless",
            Self::FloodsStderr => "chatty",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::None => "undisturbed",
            Self::ReadsNothing => "child that reads nothing",
            Self::LongLine => "lines of 100 MiB",
            Self::FloodsStderr => "10^6 lines of stderr a second",
        }
    }
}

/// What the others felt of one disturbance.
struct Felt {
    what: Disturbance,
    tally: Tally,
    /// How many calls of the harmful child did harm.
    harm: usize,
    /// By how much memory had grown at its most, in MB.
    growth: f64,
}

impl Felt {
    fn p99(&self) -> Duration {
        self.tally.times().quantile(99)
    }
}

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let lasting = scale.lasting.unwrap_or(Duration::from_secs(if scale.short { 2 } else { 20 }));
    let rate = scale.rate.unwrap_or(if scale.short { 100 } else { 300 });
    let farm = Farm::start(OTHERS, &[]).await;
    let machina = open(Config::default()).await;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        for (kind, instance) in
            [("http", Instance::new(farm.endpoint(number))), ("stdio", Instance::new(Farm::stdio_spec(&[])))]
        {
            others.push(format!("{kind}-{number}"));
            register(&machina, &others[others.len() - 1], instance).await;
        }
    }
    for what in Disturbance::ALL {
        register(&machina, what.service(), Instance::new(Farm::stdio_spec(&[]))).await;
    }
    settled(&machina, PATIENCE).await;
    let takes = (Duration::ZERO, Duration::from_millis(5));
    let mut plan = Plan { services: others, rate, mix: vec![(Class::ReadOnly, 1)], takes, seed: scale.seed };
    // What is only slow the first time is no disturbance.
    offer(&machina, &plan, Duration::from_secs(1)).await;
    let mut felt = Vec::new();
    for what in Disturbance::ALL {
        plan.seed += 1;
        felt.push(feel(&machina, &plan, what, lasting).await);
    }
    machina.close().await;
    row(&felt, lasting, rate)
}

async fn register(machina: &Machina, name: &str, instance: Instance) {
    let mut spec = ServiceSpec::new(name).expect("a valid name").instance(instance);
    spec.routing_policy.trust_annotations = Some(true);
    machina.register(spec).await.expect("a service can be registered");
}

async fn feel(machina: &Machina, plan: &Plan, what: Disturbance, lasting: Duration) -> Felt {
    let before = Process::own().resident_bytes().unwrap_or_default();
    let most = async {
        let (started, mut most) = (Instant::now(), before);
        while started.elapsed() < lasting {
            most = most.max(Process::own().resident_bytes().unwrap_or_default());
            sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let load = Box::pin(offer(machina, plan, lasting));
    let (tally, most, harm) = tokio::join!(load, most, Box::pin(disturb(machina, what, lasting)));
    Felt { what, tally, harm, growth: megabytes(most - before) }
}

/// Disturbs for `lasting`, and says how many calls did harm. What becomes of the
/// harmful child is of no interest here: it may be killed for what it does.
async fn disturb(machina: &Machina, what: Disturbance, lasting: Duration) -> usize {
    let patience = if what == Disturbance::FloodsStderr { PATIENCE_WITH_FLOOD } else { PATIENCE_WITH_HARM };
    let harm = |tool: &str, arguments: Value| {
        let options = CallOptions { timeout: Some(patience), ..CallOptions::default() };
        let (machina, call) = (machina.clone(), call(what.service(), tool, arguments));
        async move { machina.call(&call, &options).await.err().map(|error| error.context().outcome) }
    };
    let started = Instant::now();
    match what {
        Disturbance::None => 0,
        Disturbance::ReadsNothing => {
            harm("deafen", json!({})).await;
            let (tasks, load, unread) = (Tasks::new(), "x".repeat(UNREAD_BYTES), Arc::new(AtomicUsize::new(0)));
            while started.elapsed() < lasting {
                let (call, unread) = (harm("append", json!({"id": "unread", "load": load})), Arc::clone(&unread));
                tasks.spawn("unread", async move {
                    unread.fetch_add(usize::from(call.await.is_some()), Relaxed);
                });
                sleep(Duration::from_secs(1) / UNREAD_PER_SECOND).await;
            }
            tasks.finish(PATIENCE_WITH_HARM * 2).await;
            unread.load(Relaxed)
        }
        Disturbance::LongLine => {
            let mut written = 0;
            while started.elapsed() < lasting {
                let failed = harm("long_line", json!({"bytes": LONG_LINE})).await;
                // Where the call was carried out, or may have been, the line was begun.
                written += usize::from(failed != Some(Some(Outcome::NotExecuted)));
                sleep(Duration::from_millis(100)).await;
            }
            written
        }
        Disturbance::FloodsStderr => {
            let arguments = json!({"lines_per_second": LINES_PER_SECOND, "seconds": lasting.as_secs()});
            usize::from(harm("flood", arguments).await.is_none())
        }
    }
}

fn row(felt: &[Felt], lasting: Duration, rate: u32) -> Row {
    let baseline = felt[0].p99();
    let ratio = |felt: &Felt| felt.p99().as_secs_f64() / baseline.as_secs_f64().max(f64::MIN_POSITIVE);
    let worst = felt[1..].iter().map(ratio).fold(0.0, f64::max);
    let mut broken = Vec::new();
    for felt in felt {
        let failed = felt.tally.offered() - felt.tally.answers();
        if failed > 0 || felt.tally.offered() == 0 {
            broken.push(format!("{}: {failed} calls of others failed", felt.what.word()));
        }
        if felt.what != Disturbance::None && felt.harm == 0 {
            broken.push(format!("{}: nothing happened", felt.what.word()));
        }
        if felt.growth > GROWTH_MAX_MB {
            broken.push(format!("{}: memory grew by {:.0} MB", felt.what.word(), felt.growth));
        }
    }
    let line = |felt: &Felt| {
        let (what, latencies) = (felt.what.word(), felt.tally.times());
        let (offered, harm, growth) = (felt.tally.offered(), felt.harm, felt.growth);
        format!("{what} ({harm} ×): {offered} calls of others, {latencies}; memory at most +{growth:.1} MB")
    };
    let mut details = vec![format!("{} others, {rate} calls/s, {lasting:?} each, one run", 2 * OTHERS)];
    details.extend(felt.iter().map(line));
    details.extend(felt.iter().flat_map(|felt| felt.tally.kinds()));
    Row {
        name: "T19",
        figure: format!(
            "p99 of others {} undisturbed, {} (worst {:+.0} %)",
            shown(baseline),
            felt[1..].iter().map(|felt| shown(felt.p99())).collect::<Vec<_>>().join(", "),
            (worst - 1.0) * 100.0,
        ),
        target: "others' p99 +≤ 10 %, all answered, memory bounded",
        met: broken.is_empty() && worst <= 1.1,
        broken,
        details,
    }
}
