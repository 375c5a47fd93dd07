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
}
