//! What this process and its children take up, by `/proc`, over time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machina_core::Tasks;
use machina_tests::Process;
use tokio::time::{Instant, sleep};

use crate::report::megabytes;

/// How long a process that is left or dead may be there before it counts: it takes
/// a moment to be reaped or killed.
const LINGERING: Duration = Duration::from_secs(5);

/// How often processes and memory are looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// One look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    pub(crate) resident: u64,
    pub(crate) files: usize,
    pub(crate) children: usize,
}

impl Sample {
    /// How it is now.
    pub(crate) fn now() -> Self {
        let own = Process::own();
        Self {
            at: Instant::now(),
            resident: own.resident_bytes().unwrap_or_default(),
            files: own.open_files().unwrap_or_default(),
            children: own.descendants().iter().filter(|child| child.is_alive()).count(),
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RSS {:.1} MB, {} fds, {} children", megabytes(self.resident), self.files, self.children)
    }
}

/// How fast RSS grows, in MB per hour, by least squares; zero of fewer than two samples.
pub(crate) fn slope(samples: &[Sample]) -> f64 {
    let Some(first) = samples.first() else { return 0.0 };
    let points =
        samples.iter().map(|sample| ((sample.at - first.at).as_secs_f64() / 3600.0, megabytes(sample.resident)));
    let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (hours, size) in points {
        n += 1.0;
        x += hours;
        y += size;
        xx += hours * hours;
        xy += hours * size;
    }
    let spread = n * xx - x * x;
    if spread > 0.0 { (n * xy - x * y) / spread } else { 0.0 }
}

/// Watches for processes of a test that nobody looks after.
#[derive(Debug)]
pub(crate) struct Strays {
    mark: String,
    /// Since when each was seen to be a zombie, or no descendant of this process.
    zombies: HashMap<Process, Instant>,
    orphans: HashMap<Process, Instant>,
    /// How many of each were there for longer than it takes to end them.
    pub(crate) zombies_most: usize,
    pub(crate) orphans_most: usize,
}

impl Strays {
    /// Of processes whose command line has `mark` as an argument.
    pub(crate) fn new(mark: String) -> Self {
        Self { mark, zombies: HashMap::new(), orphans: HashMap::new(), zombies_most: 0, orphans_most: 0 }
    }

    /// Looks once.
    pub(crate) fn look(&mut self) {
        let family = Process::own().descendants();
        // One whose parent is stopped waits for that one, and not for Machina.
        let unreaped = |process: &Process| process.is_zombie() && !process.parent().is_some_and(Process::is_stopped);
        let zombies = family.iter().copied().filter(unreaped).collect::<Vec<_>>();
        let orphans = Process::with_argument(&self.mark).into_iter().filter(|process| !family.contains(process));
        self.zombies_most = self.zombies_most.max(lingering(&mut self.zombies, &zombies));
        self.orphans_most = self.orphans_most.max(lingering(&mut self.orphans, &orphans.collect::<Vec<_>>()));
    }
}

/// Looks again and again until it is finished.
pub(crate) struct Watch {
    seen: Arc<Mutex<(Strays, Vec<Sample>)>>,
    tasks: Tasks,
}

impl Watch {
    /// Looks at this process, and at those that have `mark` as an argument.
    pub(crate) fn start(mark: &str) -> Self {
        let (seen, tasks) = (Arc::new(Mutex::new((Strays::new(mark.to_owned()), Vec::new()))), Tasks::new());
        let looking = Arc::clone(&seen);
        tasks.spawn("watch processes", async move {
            loop {
                {
                    let mut seen = looking.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.0.look();
                    seen.1.push(Sample::now());
                }
                sleep(PAUSE).await;
            }
        });
        Self { seen, tasks }
    }

    /// What was seen.
    pub(crate) async fn finish(self) -> (Strays, Vec<Sample>) {
        self.tasks.close(PAUSE * 4).await;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::replace(&mut seen.0, Strays::new(String::new())), std::mem::take(&mut seen.1))
    }
}

/// Keeps of `seen` only what is there now, and counts what has been for long.
fn lingering(seen: &mut HashMap<Process, Instant>, now: &[Process]) -> usize {
    seen.retain(|process, _| now.contains(process));
    for process in now {
        seen.entry(*process).or_insert_with(Instant::now);
    }
    seen.values().filter(|since| since.elapsed() > LINGERING).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_slope_of_a_line_is_its_slope() {
        let start = Instant::now();
        let sample = |minutes: u64, megabytes: u64| Sample {
            at: start + Duration::from_secs(60 * minutes),
            resident: megabytes * 1024 * 1024,
            files: 0,
            children: 0,
        };
        let rising: Vec<_> = (0..10).map(|minute| sample(minute, 100 + 2 * minute)).collect();
        assert!((slope(&rising) - 120.0).abs() < 1e-6, "{}", slope(&rising));
        assert!(slope(&[sample(0, 5), sample(1, 5)]).abs() < 1e-9);
        assert!(slope(&rising[..1]).abs() < 1e-9);
    }
}
