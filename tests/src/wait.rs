//! Waiting for what will be true soon, without guessing how soon.

use std::time::Duration;

use tokio::time::{Instant, sleep};

const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(100);

/// Asks again and again until the answer is `Ok`, and returns what it holds.
///
/// # Panics
/// When `patience` is over; the message says `what` was waited for, and the last
/// answer.
pub async fn wait_until<T>(patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    let mut pause = FIRST;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(why) if started.elapsed() >= patience => {
                panic!("waited {patience:?} until {what}; in the end: {why}")
            }
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// Measures up to `rounds` times, until it takes less than `limit`: a machine that has
/// other things to do may stand still for a moment, and not each time.
///
/// # Panics
/// With what each round took, if none took less.
pub async fn fastest(rounds: usize, limit: Duration, mut measure: impl AsyncFnMut() -> Duration) {
    let mut took = Vec::new();
    while took.len() < rounds {
        took.push(measure().await);
        if took.last() < Some(&limit) {
            return;
        }
    }
    panic!("it took {took:.0?}, and never less than {limit:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn returns_what_came_in_the_end() {
        let mut left = 3;
        let found = wait_until(Duration::from_secs(1), "it is there", async || {
            left -= 1;
            if left == 0 { Ok("it") } else { Err(format!("{left} left")) }
        });
        assert_eq!(found.await, "it");
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "until it is there; in the end: not yet")]
    async fn gives_up_and_says_why() {
        wait_until::<()>(Duration::from_secs(1), "it is there", async || Err("not yet".into())).await;
    }

    #[tokio::test]
    async fn one_round_in_time_is_enough() {
        let mut rounds = [9, 1, 9].map(Duration::from_secs).into_iter();
        fastest(3, Duration::from_secs(2), async || rounds.next().unwrap()).await;
        assert_eq!(rounds.len(), 1);
    }

    #[tokio::test]
    #[should_panic(expected = "it took [2s, 3s], and never less than 2s")]
    async fn none_in_time_is_told() {
        let mut rounds = [2, 3].map(Duration::from_secs).into_iter();
        fastest(2, Duration::from_secs(2), async || rounds.next().unwrap()).await;
    }
}
