//! Counts and kept answers in Redis. Keys begin with `machina:`; everything has a
//! time after which Redis forgets it, so that nothing has to be cleaned up.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Script, cmd};
use async_trait::async_trait;
use machina_core::{Admission, Rate, Scratch, ScratchStanding};

use super::Redis;

/// Counts a call, in microseconds of the clock of Redis: see [`Rate`]. In one step,
/// because others count at the same moment. Answers how long the call waits, or 0.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local free = tonumber(redis.call('GET', KEYS[1]) or now)
free = math.max(now, math.min(free, now + tolerance + interval))
local wait = free - now - tolerance
if wait > 0 then return wait end
free = free + interval
redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', math.ceil((free - now) / 1000))
return 0";

pub(super) fn take_script() -> Script {
    Script::new(TAKE)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Scratch for Redis {
    async fn take(&self, key: &str, rate: Rate) -> Option<Admission> {
        let mut take = self.0.take.key(format!("machina:rate:{key}"));
        take.arg(rate.interval_micros()).arg(rate.tolerance_micros());
        let wait: u64 = self.0.link.ask(async |mut on| take.invoke_async(&mut on).await).await?;
        Some(if wait == 0 { Admission::Now } else { Admission::After(Duration::from_micros(wait)) })
    }

    async fn get(&self, key: &str) -> Option<Arc<[u8]>> {
        let mut get = cmd("GET");
        get.arg(format!("machina:kept:{key}"));
        let kept: Option<Vec<u8>> = self.0.link.ask(async |mut on| get.query_async(&mut on).await).await?;
        kept.map(Arc::from)
    }

    async fn put(&self, key: &str, value: &[u8], time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = cmd("SET");
        set.arg(format!("machina:kept:{key}")).arg(value).arg("PX").arg(millis);
        let _: Option<()> = self.0.link.ask(async |mut on| set.query_async(&mut on).await).await;
    }

    fn standing(&self) -> Option<ScratchStanding> {
        Some(self.0.link.told_standing())
    }
}
