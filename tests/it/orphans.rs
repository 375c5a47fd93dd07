//! Machina is killed in a way that lets it do nothing, and nothing that it started goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use machina_tests::{MachinaProcess, Process, fastest, fixture_binary, machina_binary, wait_until, wait_until_gone};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::serve::healthy;

const SOON: Duration = Duration::from_secs(30);
/// How long anything may go on after Machina was killed.
const SURVIVAL: Duration = Duration::from_secs(2);
const TREES: usize = 6;

/// A host's configuration file with servers that do not care about the end of their stdin, each of them a shell that
/// starts the fixture that starts another process: what the system ends by itself is the shell alone.
fn write_trees(directory: &std::path::Path) -> String {
    let script = r#"trap '' TERM HUP; "$0" stdio --ignore-stdin-close --ignore-sigterm --spawn-grandchild; exit"#;
    let tree = json!({"command": "sh", "args": ["-c", script, fixture_binary()]});
    let servers: serde_json::Map<String, Value> = (0..TREES).map(|n| (format!("tree-{n}"), tree.clone())).collect();
    let path = directory.join("mcp.json");
    fs::write(&path, json!({"mcpServers": servers}).to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `machina serve` with its trees, and every process below it.
async fn planted(args: &[&str]) -> (MachinaProcess, Vec<Process>) {
    let directory = tempfile::tempdir().unwrap();
    let import = write_trees(directory.path());
    let machina = MachinaProcess::serve(&[&["--import", &import], args].concat()).await;
    for number in 0..TREES {
        healthy(&machina, &format!("tree-{number}")).await;
    }
    let family = wait_until(SOON, "every tree is there", async || {
        let family = machina.process().descendants();
        if family.len() >= TREES * 3 { Ok(family) } else { Err(format!("{family:?}")) }
    });
    let family = family.await;
    (machina, family)
}

async fn shepherd_of(machina: &MachinaProcess, but: Option<Process>) -> Process {
    wait_until(SOON, "there is a shepherd", async || {
        machina.shepherd().filter(|process| Some(*process) != but).ok_or_else(|| "there is none".to_owned())
    })
    .await
}

/// How long a family survives that was just killed.
async fn survival(family: &[Process]) -> Duration {
    let killed = Instant::now();
    wait_until_gone(SOON, family).await;
    let took = killed.elapsed();
    println!("kill -9 with {} processes: 0 survivors after {took:.0?} (target 2 s)", family.len());
    took
}

/// How long anything goes on after `kill` has killed Machina.
async fn killed_by(kill: impl Fn(&MachinaProcess)) -> Duration {
    let (mut machina, mut family) = planted(&[]).await;
    family.push(shepherd_of(&machina, None).await);
    kill(&machina);
    let took = survival(&family).await;
    machina.ended(SOON).await;
    took
}

#[tokio::test]
async fn kill_9_of_machina_leaves_nothing_behind() {
    fastest(2, SURVIVAL, async || killed_by(|machina| machina.signal(Signal::KILL)).await).await;
}

#[tokio::test]
async fn kill_9_of_its_whole_group_leaves_nothing_behind() {
    fastest(2, SURVIVAL, async || killed_by(|machina| machina.process().signal_group(Signal::KILL)).await).await;
}

/// Whether Machina has told a shepherd everything: from then on its end of the pipe does not wait.
fn is_told(machina: Process, shepherd: Process) -> bool {
    const NONBLOCK: u32 = 0o4000;
    let pipe = fs::read_link(format!("/proc/{}/fd/0", shepherd.pid)).ok();
    let flags = |number: &str| {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", machina.pid)).ok()?;
        u32::from_str_radix(info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim(), 8).ok()
    };
    let mut ends = fs::read_dir(format!("/proc/{}/fd", machina.pid)).unwrap().flatten();
    ends.any(|end| {
        let is_pipe = pipe.is_some() && fs::read_link(end.path()).ok() == pipe;
        is_pipe && flags(&end.file_name().to_string_lossy()).is_some_and(|flags| flags & NONBLOCK != 0)
    })
}

#[tokio::test]
async fn a_shepherd_that_was_killed_is_replaced_and_the_next_one_knows_all() {
    fastest(2, SURVIVAL, killed_under_another_shepherd).await;
}

async fn killed_under_another_shepherd() -> Duration {
    let (mut machina, mut family) = planted(&[]).await;
    let first = shepherd_of(&machina, None).await;
    first.signal(Signal::KILL);
    let second = shepherd_of(&machina, Some(first)).await;
    wait_until(SOON, "the second one is told", async || {
        if is_told(machina.process(), second) { Ok(()) } else { Err("it is not".to_owned()) }
    })
    .await;
    assert!(family.iter().filter(|process| **process != first).all(|process| process.is_alive()), "{family:?}");
    assert!(!first.is_alive() && Process::of(first.pid) != Some(first), "it is reaped");
    family.push(second);
    machina.signal(Signal::KILL);
    let took = survival(&family).await;
    machina.ended(SOON).await;
    took
}

#[tokio::test]
async fn a_shepherd_that_does_not_listen_delays_nobody() {
    fastest(2, SURVIVAL, killed_under_a_deaf_shepherd).await;
}

async fn killed_under_a_deaf_shepherd() -> Duration {
    let (mut machina, _) = planted(&[]).await;
    let shepherd = shepherd_of(&machina, None).await;
    shepherd.signal(Signal::STOP);
    let call = json!({"tool": "exit", "arguments": {"code": 1}});
    machina.post("/api/v1/services/tree-0/call", &call).await;
    healthy(&machina, "tree-0").await;
    let family = machina.process().descendants();
    // What it was told waits in the pipe until it goes on.
    machina.signal(Signal::KILL);
    machina.ended(SOON).await;
    shepherd.signal(Signal::CONT);
    survival(&family).await
}

#[tokio::test]
async fn a_shepherd_has_a_session_of_its_own_and_nothing_of_machina() {
    let (machina, family) = planted(&[]).await;
    let shepherd = shepherd_of(&machina, None).await;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::URG] {
        shepherd.signal(signal);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(shepherd.is_alive() && family.iter().all(|process| process.is_alive()));
    let session = |process: Process| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(session(shepherd), shepherd.pid);
    assert_ne!(session(machina.process()), shepherd.pid);
    let files = |process: Process| -> BTreeSet<String> {
        let entries = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().flatten();
        entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned())).collect()
    };
    let stdin = fs::read_link(format!("/proc/{}/fd/0", shepherd.pid)).unwrap().to_string_lossy().into_owned();
    let mut shared: BTreeSet<_> = files(shepherd).intersection(&files(machina.process())).cloned().collect();
    shared.retain(|file| *file != stdin && file != "/dev/null" && !file.starts_with("anon_inode:"));
    assert_eq!(shared, BTreeSet::new());
}

#[tokio::test]
async fn a_machina_that_ends_in_order_leaves_no_shepherd_behind() {
    let (mut machina, mut family) = planted(&[]).await;
    family.push(shepherd_of(&machina, None).await);
    machina.signal(Signal::TERM);
    assert!(machina.ended(SOON).await.success());
    wait_until_gone(Duration::from_secs(10), &family).await;
}

#[tokio::test]
async fn without_a_shepherd_the_system_ends_the_children_alone() {
    fastest(2, SURVIVAL, killed_without_a_shepherd).await;
}

async fn killed_without_a_shepherd() -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("machina.toml");
    fs::write(&config, "[stdio]\nshepherd = \"off\"\n").unwrap();
    let (mut machina, family) = planted(&["--config", config.to_str().unwrap()]).await;
    assert_eq!(machina.shepherd(), None);
    let is_shell = |process: &Process| process.command_line().first().is_some_and(|program| program.ends_with("/sh"));
    let shells: Vec<_> = family.iter().copied().filter(is_shell).collect();
    assert_eq!(shells.len(), TREES);
    machina.signal(Signal::KILL);
    let took = survival(&shells).await;
    machina.ended(SOON).await;
    family.iter().for_each(|process| process.signal(Signal::KILL));
    took
}

#[tokio::test]
async fn a_shepherd_ends_its_flock_when_its_parent_is_gone_though_a_fork_holds_the_pipe() {
    fastest(2, SURVIVAL, killed_with_its_pipe_held).await;
}

async fn killed_with_its_pipe_held() -> Duration {
    let mut sheep = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
    let process = Process::of(sheep.id()).unwrap();
    // The shepherd's parent is the shell; the other end of the pipe is ours.
    let script = r#"exec 3<&0; "$0" shepherd <&3 3<&- & echo $!; exec sleep 300 <&- 3<&-"#;
    let mut parent = Command::new("sh");
    parent.args(["-c", script]).arg(machina_binary()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parent = parent.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let shepherd = Process::of(line.trim().parse().unwrap()).unwrap();
    let mut pipe = parent.stdin.take().unwrap();
    writeln!(pipe, "nonsense\n+1 -\n+{} -", process.pid).unwrap();
    wait_until(SOON, "the shepherd listens", async || {
        let status = fs::read_to_string(format!("/proc/{}/status", shepherd.pid)).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        // SIGURG is the 23rd, SIGTERM the 15th.
        let caught = u64::from_str_radix(&caught, 16).unwrap();
        if caught & (1 << 22) != 0 && caught & (1 << 14) != 0 { Ok(()) } else { Err(format!("{caught:x}")) }
    })
    .await;
    shepherd.signal(Signal::URG);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(shepherd.is_alive() && process.is_alive(), "its parent lives");
    parent.kill().unwrap();
    parent.wait().unwrap();
    shepherd.signal(Signal::URG);
    let took = survival(&[shepherd, process]).await;
    sheep.wait().unwrap();
    drop(pipe);
    took
}

#[tokio::test]
async fn a_person_who_starts_a_shepherd_is_told_that_machina_does() {
    let output = Command::new(machina_binary()).arg("shepherd").stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("started by machina itself"), "{output:?}");
}
