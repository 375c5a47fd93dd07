//! Cuts of HTTP: of both eras, with answers as JSON and as events, over real
//! sockets to the farm.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use machina_core::{CallOptions, Config, RoutingPolicy};
use machina_tests::call;
use machina_tests::farm::{Class, Cut, End, Executed, Side, Sizes};
use serde_json::json;

use super::verdict::{Attempted, Told};
use crate::Scale;
use crate::fleet::{Fleet, name};

/// How the instances of the farm differ, in turns.
const STYLES: [&str; 4] = ["HTTP modern, JSON", "HTTP legacy, JSON", "HTTP modern, events", "HTTP legacy, events"];
const PER_SERVICE: usize = 3;
/// How many services of each style the calls are spread over.
const SERVICES: usize = 20;
/// How many calls are under way.
const AT_ONCE: usize = 8;
/// How many more digits the number of a request may have than that of the measured one.
const ID_DIGITS: usize = 3;
const CLASSES: [Class; 2] = [Class::NotRepeatable, Class::ReadOnly];

/// One call that is to be cut.
struct Job {
    id: String,
    style: usize,
    class: Class,
    cut: Cut,
    sizes: Sizes,
}

/// Cuts at every offset; the short way only with resets.
pub(super) async fn run(scale: &Scale) -> Vec<Attempted> {
    // The `n`th instances of one style: every fourth of the farm.
    let place = |service: usize, nth: usize| (service / 4 * PER_SERVICE + nth) * 4 + service % 4;
    let size = (SERVICES * STYLES.len(), PER_SERVICE);
    let fleet = Fleet::start(size, &["--announce", "none"], Config::default(), &patient(), place).await;
    let sizes = measured(&fleet).await;
    let ends = if scale.short { &[End::Reset][..] } else { &[End::Reset, End::Close] };
    let jobs: Vec<Job> = STYLES.iter().enumerate().flat_map(|(style, _)| jobs(style, &sizes, ends)).collect();
    let one = async |job: Job| {
        let told = cut(&fleet, &job).await;
        (job, told)
    };
    let told: Vec<(Job, Told)> = stream::iter(jobs).map(one).buffer_unordered(AT_ONCE).collect().await;
    let (executed, sizes) = (fleet.farm.executions().await, fleet.farm.sizes().await);
    fleet.machina.close().await;
    told.into_iter().map(|(job, told)| attempted(job, told, &executed, &sizes)).collect()
}

/// Nothing but the call in question is to decide: no instance is ejected, and no
/// repeat is one too many.
pub(super) fn patient() -> RoutingPolicy {
    RoutingPolicy {
        trust_annotations: Some(true),
        ejection_failures: Some(1000),
        ejection_success_percentage: Some(0),
        retry_percentage: Some(100),
        retries_per_second: Some(1000),
        ..RoutingPolicy::default()
    }
}

/// The sizes of a call of each style and class.
async fn measured(fleet: &Fleet) -> HashMap<(usize, Class), Sizes> {
    let mut ids = Vec::new();
    for style in 0..STYLES.len() {
        for class in CLASSES {
            let job = Job {
                id: id(style, class, Side::Nothing, 0, End::Reset),
                style,
                class,
                cut: Cut { side: Side::Nothing, after: 0, end: End::Reset },
                sizes: Sizes { request: 0, response: 0, answer: 0 },
            };
            cut(fleet, &job).await;
            ids.push(((style, class), job.id));
        }
    }
    let sizes = fleet.farm.sizes().await;
    ids.into_iter().map(|(key, id)| (key, *sizes.get(&id).expect("a call that was to be measured was"))).collect()
}

/// The name of a call, of one length for all.
fn id(style: usize, class: Class, side: Side, after: usize, end: End) -> String {
    format!("cut-{style}-{}-{}-{}-{after:05}", class as u8, side as u8, end as u8)
}

fn jobs(style: usize, sizes: &HashMap<(usize, Class), Sizes>, ends: &[End]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for class in CLASSES {
        let sizes = sizes[&(style, class)];
        for (side, all) in [(Side::Request, sizes.request), (Side::Response, sizes.response)] {
            for end in ends {
                let cuts = (0..=all + ID_DIGITS).map(|after| Cut { side, after, end: *end });
                jobs.extend(cuts.map(|cut| Job {
                    id: id(style, class, side, cut.after, cut.end),
                    style,
                    class,
                    cut,
                    sizes,
                }));
            }
        }
    }
    jobs
}

async fn cut(fleet: &Fleet, job: &Job) -> Told {
    let service = (job.cut.after % SERVICES) * STYLES.len() + job.style;
    let arguments = json!({"id": job.id, "ms": 0, "cut": job.cut.to_string()});
    let request = call(&name(service), job.class.tool(), arguments);
    Told::of(&fleet.machina.call(&request, &CallOptions::default()).await)
}

fn attempted(
    job: Job,
    told: Told,
    executed: &HashMap<String, Executed>,
    measured: &HashMap<String, Sizes>,
) -> Attempted {
    let executed = executed.get(&job.id).map_or(0, |executed| executed.times);
    let sizes = measured.get(&job.id).copied().unwrap_or(job.sizes);
    let Job { style, class, cut, .. } = job;
    Attempted { style: STYLES[style].to_owned(), class, cut, sizes, told, executed }
}
