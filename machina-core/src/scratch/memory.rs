//! Counts and kept answers in this process, bounded in number and in bytes. What
//! does not fit goes: the count that is over soonest, the answer that nobody asked
//! for in the longest time.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Admission, Rate, Scratch, ScratchStanding};

/// What an entry takes besides its key and its value, about.
const ENTRY_BYTES: usize = 160;

/// Keeps 10,000 counts, and 20,000 answers of together 64 MiB.
#[derive(Debug)]
pub struct MemoryScratch {
    began: Instant,
    counts_max: usize,
    counts: Mutex<HashMap<String, u64>>,
    kept: Mutex<Kept>,
}

struct Kept {
    entries_max: usize,
    bytes_max: usize,
    bytes: usize,
    entries: HashMap<Arc<str>, Entry>,
    /// Each key once, in the order in which they are looked at to make room.
    order: VecDeque<Arc<str>>,
}

/// Shows how much is kept, and nothing of it: answers are nobody else's business.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("entries", &self.entries.len()).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

struct Entry {
    value: Arc<[u8]>,
    until: Instant,
    /// Whether it was asked for since it was last looked at.
    used: bool,
}

impl MemoryScratch {
    /// How many counts are kept.
    pub const COUNTS_MAX: usize = 10_000;
    /// How many answers are kept.
    pub const ENTRIES_MAX: usize = 20_000;
    /// How many bytes they have together.
    pub const BYTES_MAX: usize = 64 * 1024 * 1024;

    /// Nothing is counted or kept yet.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(Self::COUNTS_MAX, Self::ENTRIES_MAX, Self::BYTES_MAX)
    }

    fn bounded(counts_max: usize, entries_max: usize, bytes_max: usize) -> Self {
        let kept = Kept { entries_max, bytes_max, bytes: 0, entries: HashMap::new(), order: VecDeque::new() };
        Self { began: Instant::now(), counts_max, counts: Mutex::default(), kept: Mutex::new(kept) }
    }

    pub(super) fn count(&self, key: &str, rate: Rate) -> Admission {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX / 2);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match rate.count(counts.get(key).copied().unwrap_or(0), now) {
            Err(wait) => Admission::After(wait),
            Ok(free) => {
                if let Some(known) = counts.get_mut(key) {
                    *known = free;
                } else {
                    make_room(&mut counts, self.counts_max, now);
                    counts.insert(key.to_owned(), free);
                }
                Admission::Now
            }
        }
    }

    pub(super) fn find(&self, key: &str) -> Option<Arc<[u8]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = kept.entries.get_mut(key).filter(|entry| entry.until > Instant::now())?;
        entry.used = true;
        Some(Arc::clone(&entry.value))
    }

    pub(super) fn keep(&self, key: &str, value: Arc<[u8]>, time: Duration) {
        let until = Instant::now() + time;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(key, value, until);
    }
}

impl Default for MemoryScratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes room for one more: of all whose time is over or, where there is none, of
/// the one whose time is over first.
fn make_room(counts: &mut HashMap<String, u64>, counts_max: usize, now: u64) {
    if counts.len() < counts_max {
        return;
    }
    counts.retain(|_, free| *free > now);
    if counts.len() >= counts_max
        && let Some(first) = counts.iter().min_by_key(|(_, free)| **free).map(|(key, _)| key.clone())
    {
        counts.remove(&first);
    }
}

impl Kept {
    fn put(&mut self, key: &str, value: Arc<[u8]>, until: Instant) {
        let size = size(key, &value);
        if size > self.bytes_max {
            return;
        }
        let (key, known) = match self.entries.get_key_value(key) {
            Some((known, old)) => {
                self.bytes -= self::size(known, &old.value);
                (Arc::clone(known), true)
            }
            None => (Arc::from(key), false),
        };
        self.bytes += size;
        self.entries.insert(Arc::clone(&key), Entry { value, until, used: false });
        if !known {
            self.order.push_back(key);
        }
        self.make_room();
    }

    /// Drops what is over or was not asked for since the last time (the clock
    /// algorithm, Corbató 1968) until all fits.
    fn make_room(&mut self) {
        let now = Instant::now();
        while (self.bytes > self.bytes_max || self.entries.len() > self.entries_max)
            && let Some(key) = self.order.pop_front()
        {
            match self.entries.get_mut(&key) {
                Some(entry) if entry.used && entry.until > now => {
                    entry.used = false;
                    self.order.push_back(key);
                }
                _ => {
                    if let Some(entry) = self.entries.remove(&key) {
                        self.bytes -= size(&key, &entry.value);
                    }
                }
            }
        }
    }
}

fn size(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Scratch for MemoryScratch {
    async fn take(&self, key: &str, rate: Rate) -> Option<Admission> {
        Some(self.count(key, rate))
    }

    async fn get(&self, key: &str) -> Option<Arc<[u8]>> {
        self.find(key)
    }

    async fn put(&self, key: &str, value: &[u8], time: Duration) {
        self.keep(key, value.into(), time);
    }

    /// It is in this process.
    fn standing(&self) -> Option<ScratchStanding> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::scratch_suite!(MemoryScratch::new());

    const SECOND: Duration = Duration::from_secs(1);

    fn put(scratch: &MemoryScratch, key: &str, bytes: usize) {
        scratch.keep(key, vec![0; bytes].into(), SECOND);
    }

    fn keys(scratch: &MemoryScratch, keys: &[&str]) -> Vec<bool> {
        keys.iter().map(|key| scratch.kept.lock().unwrap().entries.contains_key(*key)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_asked_for_makes_room() {
        let scratch = MemoryScratch::bounded(1, 3, 100_000);
        for key in ["a", "b", "c"] {
            put(&scratch, key, 10);
        }
        assert!(scratch.find("a").is_some());
        put(&scratch, "d", 10);
        assert_eq!(keys(&scratch, &["a", "b", "c", "d"]), [true, false, true, true]);
        for key in ["e", "f", "g"] {
            put(&scratch, key, 10);
        }
        assert_eq!(keys(&scratch, &["a", "e", "f", "g"]), [false, true, true, true], "to be asked for once helps once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_not_shown() {
        let scratch = MemoryScratch::new();
        scratch.keep("k", b"hunter2".as_slice().into(), SECOND);
        let shown = format!("{scratch:?}");
        assert!(shown.contains("entries: 1") && !shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_and_add_up() {
        let scratch = MemoryScratch::bounded(1, 100, 1000);
        put(&scratch, "large", 2000);
        assert_eq!(keys(&scratch, &["large"]), [false], "it would leave no room for anything else");
        for round in 0..50 {
            put(&scratch, ["a", "b", "c", "d", "e", "f"][round % 6], round * 7 % 300);
            let kept = scratch.kept.lock().unwrap();
            let sum: usize = kept.entries.iter().map(|(key, entry)| size(key, &entry.value)).sum();
            assert!(kept.bytes == sum && sum <= 1000 && kept.order.len() == kept.entries.len(), "{kept:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_makes_room_even_if_it_was_asked_for() {
        let scratch = MemoryScratch::bounded(1, 2, 100_000);
        put(&scratch, "a", 1);
        assert!(scratch.find("a").is_some());
        tokio::time::sleep(SECOND).await;
        put(&scratch, "b", 1);
        put(&scratch, "c", 1);
        assert_eq!(keys(&scratch, &["a", "b", "c"]), [false, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_counts_is_bounded_and_forgets_the_least() {
        let scratch = MemoryScratch::bounded(2, 1, 1);
        let (slow, quick) = (Rate { per_minute: 1, burst: 1 }, Rate { per_minute: 6000, burst: 1 });
        assert_eq!(scratch.count("slow", slow), Admission::Now);
        assert_eq!(scratch.count("quick", quick), Admission::Now);
        assert_eq!(scratch.count("third", slow), Admission::Now);
        assert_eq!(scratch.counts.lock().unwrap().len(), 2);
        assert!(matches!(scratch.count("slow", slow), Admission::After(_)), "it has the longest to wait, and is known");
        tokio::time::sleep(SECOND * 61).await;
        for key in ["x", "y"] {
            assert_eq!(scratch.count(key, slow), Admission::Now);
        }
        assert_eq!(scratch.counts.lock().unwrap().len(), 2);
    }
}
