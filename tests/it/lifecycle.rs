//! However a registry ends, nothing that it started is left: no child, and no
//! child of a child, however stubborn.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use machina_core::{Config, Instance, Machina, ServiceSpec};
use machina_tests::{Fixture, Process, open, settled, wait_until, wait_until_gone};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);
const STUBBORN: [&str; 3] = ["--ignore-stdin-close", "--ignore-sigterm", "--spawn-grandchild"];

/// A registry with a polite child, a stubborn one, and one that starts slowly,
/// and every process of theirs.
async fn family() -> (Machina, Vec<Process>) {
    let machina = open(Config::default()).await;
    for (name, args) in [("polite", &["--spawn-grandchild"][..]), ("stubborn", &STUBBORN[..])] {
        let instance = Instance::new(Fixture::stdio_spec(args));
        machina.register(ServiceSpec::new(name).unwrap().instance(instance)).await.unwrap();
    }
    settled(&machina, SOON).await;
    // Other tests of this process have one too.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mark = format!("slow-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let slow = Instance::new(Fixture::stdio_spec(&["--start-delay-ms", "60000", "--name", &mark]));
    machina.register(ServiceSpec::new("slow").unwrap().instance(slow)).await.unwrap();
    let mut children = Vec::new();
    for name in ["polite", "stubborn"] {
        let seen = machina.health(name).await.unwrap().instances.remove(0);
        let process = seen.process_id.and_then(Process::of).unwrap();
        let own = process.descendants();
        assert_eq!(own.len(), 1, "{name} has a grandchild");
        children.extend([process, own[0]]);
    }
    let slow = wait_until(SOON, "the slow one is starting", async || {
        let ours = Process::own().descendants().into_iter();
        let mut slow = ours.filter(|process| command_line(*process).split('\0').any(|argument| argument == mark));
        slow.next().ok_or_else(|| "it is not".to_owned())
    })
    .await;
    children.push(slow);
    (machina, children)
}

fn command_line(process: Process) -> String {
    std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default()
}

#[tokio::test]
async fn a_close_leaves_nothing_behind() {
    let (machina, children) = family().await;
    let started = Instant::now();
    machina.close().await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    // A child that was still starting is killed and not waited for.
    wait_until_gone(Duration::from_secs(10), &children).await;
}

#[tokio::test]
async fn a_deregistered_service_leaves_nothing_behind() {
    let (machina, children) = family().await;
    for name in ["polite", "stubborn", "slow"] {
        machina.deregister(name).await.unwrap();
    }
    wait_until_gone(Duration::from_secs(12), &children).await;
    machina.close().await;
}

#[tokio::test]
async fn a_changed_endpoint_replaces_its_process() {
    let (machina, children) = family().await;
    let spec = ServiceSpec::new("stubborn").unwrap().instance(Instance::new(Fixture::stdio_spec(&["--name", "new"])));
    machina.update("stubborn", spec, None).await.unwrap();
    wait_until_gone(Duration::from_secs(12), &children[2..4]).await;
    assert!(children[..2].iter().all(|process| process.is_alive()), "the others go on");
    machina.close().await;
}

/// Runs a registry in a runtime of its own on a thread that ends by `end`, and
/// returns the processes that it had started.
fn on_a_thread_of_its_own(end: fn(Machina)) -> Vec<Process> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let (machina, children) = family().await;
            sender.send(children).unwrap();
            end(machina);
        });
    });
    let _ = thread.join();
    receiver.recv().unwrap()
}

#[tokio::test]
async fn a_dropped_registry_and_runtime_leave_nothing_behind() {
    let children = tokio::task::spawn_blocking(|| on_a_thread_of_its_own(drop)).await.unwrap();
    wait_until_gone(Duration::from_secs(5), &children).await;
}

#[tokio::test]
async fn a_panic_leaves_nothing_behind() {
    let panics = || on_a_thread_of_its_own(|_machina| panic!("on purpose"));
    let children = tokio::task::spawn_blocking(panics).await.unwrap();
    wait_until_gone(Duration::from_secs(5), &children).await;
}
