//! T15 and T16: everything is down and comes back; three times as many calls as
//! can be carried.

use std::time::Duration;

use machina_core::testing::Behaviour;
use tokio::time::Instant;

use super::super::calls::{Call, Load, Told};
use super::super::fleet::{Fleet, config};
use super::super::{Row, paused};
use super::{Size, seconds};

/// Calls a second while everything is down.
const RATE: u32 = 200;

/// How long it is down, and how long is looked on afterwards.
const DOWN: Duration = Duration::from_secs(60);
const AFTERWARDS: Duration = Duration::from_secs(60);

/// When from `up` on nearly all calls that are made within a second are answered.
fn recovered(calls: &[Call], up: Instant) -> Duration {
    let second = Duration::from_secs(1);
    let well = |from: Instant| {
        let made: Vec<_> = calls.iter().filter(|call| call.made >= from && call.made < from + second).collect();
        made.iter().filter(|call| call.told == Told::Answered).count() * 100 >= made.len() * 99
    };
    let moments = (0..AFTERWARDS.as_secs() * 4).map(|quarter| second * u32::try_from(quarter).unwrap_or(0) / 4);
    let mut last_bad = Duration::ZERO;
    for moment in moments.filter(|moment| *moment + second <= AFTERWARDS) {
        if !well(up + moment) {
            last_bad = moment + second;
        }
    }
    last_bad
}

/// All five instances are down for a minute, in different ways.
pub(super) fn all_down(seed: u64, size: Size) -> Vec<Row> {
    let rate = size.of(RATE / 4, RATE);
    let of = |what: &'static str, behaviour: Behaviour| {
        paused(async {
            let fleet =
                Fleet::open(seed, 1, 5, config(), |spec| spec.routing_policy.trust_annotations = Some(true)).await;
            let load = Load { service: "s0".to_owned(), rate, patience: Duration::from_secs(5), tool: "echo" };
            load.offer(&fleet, Duration::from_secs(5)).await;
            fleet.forget();
            let up = Instant::now() + DOWN;
            fleet.instances.iter().for_each(|instance| fleet.sims.set(instance, behaviour));
            let mending = async {
                tokio::time::sleep_until(up).await;
                fleet.instances.iter().for_each(|instance| fleet.sims.set(instance, Behaviour::Up));
            };
            let (calls, ()) = tokio::join!(load.offer(&fleet, DOWN + AFTERWARDS), mending);
            let (took, reached) = (recovered(&calls, up), fleet.seen(|seen| seen.calls));
            fleet.close().await;
            let attempts: u64 = calls.iter().map(|call| u64::from(call.attempts)).sum();
            #[allow(clippy::cast_precision_loss, reason = "a ratio")]
            let [sent, tried] = [reached, attempts].map(|count| count as f64 / calls.len() as f64);
            Row {
                name: "T15",
                figure: format!(
                    "{what}: answered again after {}; {sent:.2} executions and {tried:.2} attempts per call",
                    seconds(took)
                ),
                target: "≤ 15 s, ≤ 1.2 executions per call".to_owned(),
                met: took <= Duration::from_secs(15) && sent <= 1.2 && calls.len() > 1000,
                how: format!("seed {seed}, whole registry, all of five for {}, {rate} calls/s", seconds(DOWN)),
            }
        })
    };
    vec![
        of("killed", Behaviour::Killed),
        of("black hole", Behaviour::BlackHole),
        of("loses every answer", Behaviour::LoseAnswers),
    ]
}

/// One tenant calls three times as often as its instances can answer.
pub(super) fn overload(seed: u64, size: Size) -> Vec<Row> {
    // Each of two instances works on 16 calls of 100 ms at a time.
    const WORKERS: usize = 16;
    const CAPACITY: u32 = 2 * 160;
    let time = Duration::from_secs(size.of(20, 120));
    paused(async {
        let fleet = Fleet::open(seed, 4, 2, config(), |_| {}).await;
        for instance in &fleet.instances {
            fleet.sims.set_latency(instance, Duration::from_millis(100));
            fleet.sims.set_workers(instance, WORKERS);
        }
        let load = |service: usize, rate: u32| Load {
            service: format!("s{service}"),
            rate,
            patience: Duration::from_secs(2),
            tool: "add",
        };
        let over = Instant::now() + time;
        let (greedy, second, third, fourth) = (load(0, 3 * CAPACITY), load(1, 50), load(2, 50), load(3, 50));
        let (calls, b, c, d) = tokio::join!(
            greedy.offer(&fleet, time),
            second.offer(&fleet, time),
            third.offer(&fleet, time),
            fourth.offer(&fleet, time)
        );
        let routing = fleet.machina.config().routing.clone();
        fleet.close().await;
        let answered = |calls: &[Call]| calls.iter().filter(|call| call.told == Told::Answered).count();
        let in_time = calls.iter().filter(|call| call.told == Told::Answered && call.ended <= over).count();
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let goodput = 100.0 * in_time as f64 / (f64::from(CAPACITY) * time.as_secs_f64());
        let others = [b, c, d].concat();
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let served = 100.0 * answered(&others) as f64 / others.len() as f64;
        let most = outstanding(&calls);
        let bound = 2 * routing.in_flight_max + routing.queue_max;
        vec![Row {
            name: "T16",
            figure: format!(
                "goodput {goodput:.1} % of capacity, others {served:.2} % answered, at most {most} calls held"
            ),
            target: format!("≥ 90 %, ≥ 95 %, ≤ {bound} calls held"),
            met: goodput >= 90.0 && served >= 95.0 && most <= bound as usize,
            how: format!("seed {seed}, whole registry, {} of {CAPACITY} calls/s for {time:?}", 3 * CAPACITY),
        }]
    })
}

/// How many calls were held at most at a time.
fn outstanding(calls: &[Call]) -> usize {
    let began = calls.iter().map(|call| (call.made, 1));
    let ended = calls.iter().filter(|call| call.ended > call.made).map(|call| (call.ended, -1));
    let instant = calls.iter().filter(|call| call.ended == call.made).map(|call| (call.made, -1));
    let mut marks: Vec<(Instant, i32)> = began.chain(ended).chain(instant).collect();
    marks.sort_unstable();
    let (mut held, mut most) = (0, 0);
    for (_, change) in marks {
        held += change;
        most = most.max(held);
    }
    usize::try_from(most).unwrap_or(0)
}
