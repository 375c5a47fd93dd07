//! Cuts of stdio: children that die after so many bytes of a request or of a
//! response, by SIGKILL or by an end of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use machina_core::{CallOptions, Config, Instance, Machina, ServiceSpec};
use machina_tests::farm::{Class, Cut, End, Side, Sizes};
use machina_tests::{Farm, JournalFile, call, open, settled};
use serde_json::json;

use super::http::patient;
use super::verdict::{Attempted, Told};
use crate::Scale;

const STYLE: &str = "stdio";
/// How many instances a service has: one dies, another answers what may be repeated.
const PER_SERVICE: usize = 2;
/// How many services there are at a time.
const BATCH: usize = 24;
const PATIENCE: Duration = Duration::from_secs(120);
/// Every how many bytes the short way cuts.
const SHORT_STRIDE: usize = 16;
const CLASSES: [Class; 2] = [Class::NotRepeatable, Class::ReadOnly];

/// One call that is to be cut, of a service of its own.
struct Job {
    id: String,
    class: Class,
    cut: Cut,
}

/// Cuts at every offset; the short way at some, and only by SIGKILL.
pub(super) async fn run(scale: &Scale) -> Vec<Attempted> {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let journal = JournalFile::new(directory.path().join("journal"));
    let machina = open(Config::default()).await;
    let mut sizes = BTreeMap::new();
    for class in CLASSES {
        let job = job(class, Cut { side: Side::Nothing, after: 0, end: End::Reset });
        let id = job.id.clone();
        cut_all(&machina, directory.path(), &journal, vec![job]).await;
        let text = std::fs::read(directory.path().join(format!("{id}.json"))).expect("the child has measured its call");
        sizes.insert(class, serde_json::from_slice::<Sizes>(&text).expect("the child writes sizes"));
    }
    let (stride, ends) =
        if scale.short { (SHORT_STRIDE, &[End::Reset][..]) } else { (1, &[End::Reset, End::Close][..]) };
    let mut jobs: Vec<Job> = sizes.iter().flat_map(|(class, sizes)| jobs(*class, *sizes, stride, ends)).collect();
    let mut told = Vec::new();
    while !jobs.is_empty() {
        let rest = jobs.split_off(jobs.len().min(BATCH));
        let batch = std::mem::replace(&mut jobs, rest);
        told.extend(cut_all(&machina, directory.path(), &journal, batch).await);
    }
    machina.close().await;
    let attempted = told.into_iter().map(|(job, told)| {
        let executed = journal.executions(job.class.tool()).expect("the journal can be read");
        let executed = u32::try_from(executed.get(&job.id).copied().unwrap_or_default()).unwrap_or(u32::MAX);
        let sizes = sizes[&job.class];
        Attempted { style: STYLE.to_owned(), class: job.class, cut: job.cut, sizes, told, executed }
    });
    attempted.collect()
}

fn job(class: Class, cut: Cut) -> Job {
    Job { id: format!("cut-{}-{}-{}-{:05}", class as u8, cut.side as u8, cut.end as u8, cut.after), class, cut }
}

fn jobs(class: Class, sizes: Sizes, stride: usize, ends: &[End]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (side, all) in [(Side::Request, sizes.request), (Side::Response, sizes.response)] {
        for end in ends {
            let mut offsets: Vec<usize> = (0..all).step_by(stride).chain([all - 1, all]).collect();
            offsets.dedup();
            jobs.extend(offsets.into_iter().map(|after| job(class, Cut { side, after, end: *end })));
        }
    }
    jobs
}

/// Makes each call at a service of its own, and removes the services.
async fn cut_all(machina: &Machina, claims: &Path, journal: &JournalFile, jobs: Vec<Job>) -> Vec<(Job, Told)> {
    let (claims, journal) = (claims.to_string_lossy(), journal.path().to_string_lossy());
    for job in &jobs {
        let mut spec = ServiceSpec::new(&job.id).expect("a valid name");
        spec.routing_policy = patient();
        for _ in 0..PER_SERVICE {
            let endpoint = Farm::stdio_spec(&["--claims", &claims, "--journal", &journal]);
            spec = spec.instance(Instance::new(endpoint));
        }
        machina.register(spec).await.expect("a child can be registered");
    }
    settled(machina, PATIENCE).await;
    let one = async |job: Job| {
        let arguments = json!({"id": job.id, "ms": 0, "cut": job.cut.to_string()});
        let request = call(&job.id, job.class.tool(), arguments);
        let told = Told::of(&machina.call(&request, &CallOptions::default()).await);
        machina.deregister(&job.id).await.expect("a service can be removed");
        (job, told)
    };
    stream::iter(jobs).map(one).buffer_unordered(PER_SERVICE).collect().await
}
