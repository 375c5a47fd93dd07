//! How counts and answers must be kept: one function for each point of the
//! **Behaviour** list of [`Scratch`]. [`scratch_suite!`](crate::scratch_suite)
//! makes a test of each. Every function uses keys of its own, takes real time, and
//! panics where the behaviour differs.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::scratch::{Admission, Rate, Scratch};

const LONG: Duration = Duration::from_secs(60);

/// Stamps one `#[tokio::test]` for each behaviour of [`Scratch`].
///
/// The expression makes one; it may `.await`.
#[macro_export]
macro_rules! scratch_suite {
    ($make:expr) => {
        $crate::scratch_suite! { @ $make =>
            what_is_kept_is_found, what_is_kept_anew_replaces_what_was, what_is_kept_goes_after_its_time,
            a_rate_lets_a_burst_pass, a_refused_call_is_told_when_to_come_back, rates_are_counted_by_key,
            a_lowered_rate_holds_at_once,
        }
    };
    (@ $make:expr => $($behaviour:ident,)*) => {
        $(
            #[::tokio::test]
            async fn $behaviour() {
                let made = $make;
                $crate::testing::scratch_suite::$behaviour(&made).await;
            }
        )*
    };
}

/// A key that nobody else uses.
fn key() -> String {
    Uuid::now_v7().to_string()
}

async fn get(scratch: &dyn Scratch, key: &str) -> Option<Vec<u8>> {
    scratch.get(key).await.map(|value| value.to_vec())
}

async fn take(scratch: &dyn Scratch, key: &str, rate: Rate) -> Admission {
    scratch.take(key, rate).await.expect("it can be asked")
}

/// How many of `calls` pass.
async fn passed(scratch: &dyn Scratch, key: &str, rate: Rate, calls: usize) -> usize {
    let mut passed = 0;
    for _ in 0..calls {
        passed += usize::from(take(scratch, key, rate).await == Admission::Now);
    }
    passed
}

/// See [`Scratch`].
pub async fn what_is_kept_is_found(scratch: &dyn Scratch) {
    let (key, other, value) = (key(), key(), [0, 255, b'\r', b'\n', b'"', 0xc3]);
    scratch.put(&key, &value, LONG).await;
    assert_eq!(get(scratch, &key).await.as_deref(), Some(&value[..]));
    assert_eq!(get(scratch, &other).await, None);
    scratch.put(&other, &[], LONG).await;
    assert_eq!(get(scratch, &other).await, Some(Vec::new()), "nothing is a value too");
}

/// See [`Scratch`].
pub async fn what_is_kept_anew_replaces_what_was(scratch: &dyn Scratch) {
    let key = key();
    scratch.put(&key, b"old", Duration::from_millis(100)).await;
    scratch.put(&key, b"new", LONG).await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(get(scratch, &key).await.as_deref(), Some(&b"new"[..]));
}

/// See [`Scratch`].
pub async fn what_is_kept_goes_after_its_time(scratch: &dyn Scratch) {
    let (short, long) = (key(), key());
    scratch.put(&short, b"s", Duration::from_millis(300)).await;
    scratch.put(&long, b"l", LONG).await;
    assert!(get(scratch, &short).await.is_some());
    sleep(Duration::from_millis(400)).await;
    assert_eq!(get(scratch, &short).await, None);
    assert!(get(scratch, &long).await.is_some());
}

/// See [`Scratch`].
pub async fn a_rate_lets_a_burst_pass(scratch: &dyn Scratch) {
    let key = key();
    let rate = Rate { per_minute: 6, burst: 5 };
    assert_eq!(passed(scratch, &key, rate, 20).await, 5);
}

/// See [`Scratch`].
pub async fn a_refused_call_is_told_when_to_come_back(scratch: &dyn Scratch) {
    let key = key();
    let rate = Rate { per_minute: 120, burst: 1 };
    assert_eq!(take(scratch, &key, rate).await, Admission::Now);
    let Admission::After(wait) = take(scratch, &key, rate).await else { panic!("the rate is used up") };
    let interval = Duration::from_micros(rate.interval_micros());
    assert!(!wait.is_zero() && wait <= interval, "{wait:?}");
    let begun = Instant::now();
    sleep(wait + Duration::from_millis(2)).await;
    assert_eq!(take(scratch, &key, rate).await, Admission::Now, "after {:?}", begun.elapsed());
}

/// See [`Scratch`].
pub async fn rates_are_counted_by_key(scratch: &dyn Scratch) {
    let (one, other) = (key(), key());
    let rate = Rate { per_minute: 1, burst: 1 };
    assert_eq!(passed(scratch, &one, rate, 3).await, 1);
    assert_eq!(passed(scratch, &other, rate, 3).await, 1);
}

/// See [`Scratch`].
pub async fn a_lowered_rate_holds_at_once(scratch: &dyn Scratch) {
    let key = key();
    assert_eq!(passed(scratch, &key, Rate { per_minute: 1, burst: 50 }, 50).await, 50);
    let rate = Rate { per_minute: 600, burst: 2 };
    let Admission::After(wait) = take(scratch, &key, rate).await else { panic!("the rate is used up") };
    assert!(wait <= Duration::from_micros(rate.interval_micros()), "{wait:?} of another rate");
}
