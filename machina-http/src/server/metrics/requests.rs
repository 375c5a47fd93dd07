//! How many requests there were, how they were answered and how long that took,
//! by route. On the way of every request: additions to atomic numbers, without a
//! lock, and without an allocation once a route has been answered like that
//! before. Refuses to know the path of a request, only the route that it took.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::{MatchedPath, Request};
use http::{Method, StatusCode};
use machina_core::DURATION_BOUNDS;

/// How many routes are told apart, and how many kinds of answers of each. The
/// router has fewer; of further ones nothing is counted.
const ROUTES_MAX: usize = 1000;
const KINDS_MAX: usize = 200;

const BUCKETS: usize = DURATION_BOUNDS.len() + 1;

/// The methods that are told apart; any other is `_OTHER`, as OpenTelemetry has it.
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
const OTHER_METHOD: &str = "_OTHER";

/// The name under which requests are counted that no route took.
const NO_ROUTE: &str = "";

/// What was asked, as far as it is counted.
#[derive(Debug)]
pub(in crate::server) struct Asked {
    route: Option<MatchedPath>,
    method: &'static str,
}

/// Requests by route.
#[derive(Debug, Default)]
pub(in crate::server) struct Requests {
    routes: ArcSwap<HashMap<String, Arc<Route>>>,
}

/// The answers of one route by kind, of which there are few.
#[derive(Debug, Default)]
struct Route {
    kinds: ArcSwap<Vec<Arc<Answers>>>,
}

/// The answers of one kind. All additions are relaxed: a snapshot may miss the
/// last few.
#[derive(Debug)]
struct Answers {
    method: &'static str,
    status: u16,
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// Answers of one kind, as counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Counted {
    pub(super) route: String,
    pub(super) method: &'static str,
    pub(super) status: u16,
    /// How many took up to each of [`DURATION_BOUNDS`] and longer than the one
    /// before, and how many longer than all of them.
    pub(super) buckets: [u64; BUCKETS],
    pub(super) seconds: f64,
}

impl Asked {
    pub(in crate::server) fn of(request: &Request) -> Self {
        Self { route: request.extensions().get::<MatchedPath>().cloned(), method: known(request.method()) }
    }
}

fn known(method: &Method) -> &'static str {
    METHODS.iter().find(|known| **known == method.as_str()).copied().unwrap_or(OTHER_METHOD)
}

impl Requests {
    /// A request was answered.
    pub(in crate::server) fn answered(&self, asked: &Asked, status: StatusCode, took: Duration) {
        let route = asked.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        let answers = self.routes.load().get(route).and_then(|route| route.known(asked.method, status.as_u16()));
        let answers = answers.or_else(|| self.route(route)?.answers(asked.method, status.as_u16()));
        if let Some(answers) = answers {
            answers.took(took);
        }
    }

    fn route(&self, name: &str) -> Option<Arc<Route>> {
        self.routes.rcu(|routes| {
            let mut more = HashMap::clone(routes);
            if more.len() < ROUTES_MAX {
                more.entry(name.to_owned()).or_default();
            }
            more
        });
        self.routes.load().get(name).cloned()
    }

    /// What was counted, by route, method and status.
    pub(super) fn counted(&self) -> Vec<Counted> {
        let mut counted = Vec::new();
        for (name, route) in self.routes.load().iter() {
            counted.extend(route.kinds.load().iter().map(|answers| answers.counted(name)));
        }
        counted.sort_by(|a, b| (&a.route, a.method, a.status).cmp(&(&b.route, b.method, b.status)));
        counted
    }
}

impl Route {
    fn known(&self, method: &str, status: u16) -> Option<Arc<Answers>> {
        let kinds = self.kinds.load();
        kinds.iter().find(|answers| answers.status == status && answers.method == method).cloned()
    }

    fn answers(&self, method: &'static str, status: u16) -> Option<Arc<Answers>> {
        self.kinds.rcu(|kinds| {
            let mut more = Vec::clone(kinds);
            let there = more.iter().any(|answers| answers.status == status && answers.method == method);
            if !there && more.len() < KINDS_MAX {
                more.push(Arc::new(Answers::new(method, status)));
            }
            more
        });
        self.known(method, status)
    }
}

impl Answers {
    fn new(method: &'static str, status: u16) -> Self {
        Self { method, status, buckets: Default::default(), micros: AtomicU64::default() }
    }

    fn took(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.buckets[DURATION_BOUNDS.partition_point(|bound| *bound < seconds)].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    #[allow(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
    fn counted(&self, route: &str) -> Counted {
        Counted {
            route: route.to_owned(),
            method: self.method,
            status: self.status,
            buckets: std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed)),
            seconds: self.micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method) -> Asked {
        Asked { route: None, method: known(method) }
    }

    #[test]
    fn answers_are_counted_by_kind_and_duration() {
        let requests = Requests::default();
        for (method, status, millis) in
            [(Method::GET, 200, 5), (Method::GET, 200, 6), (Method::GET, 404, 20_000), (Method::POST, 200, 0)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            requests.answered(&asked(&method), status, Duration::from_millis(millis));
        }
        let counted = requests.counted();
        let kinds: Vec<_> = counted.iter().map(|one| (one.method, one.status, one.buckets.iter().sum())).collect();
        assert_eq!(kinds, [("GET", 200, 2_u64), ("GET", 404, 1), ("POST", 200, 1)]);
        assert_eq!(counted[0].buckets[..2], [1, 1], "a bound belongs to the bucket below it");
        assert_eq!(counted[1].buckets[BUCKETS - 1], 1);
        assert!((counted[0].seconds - 0.011).abs() < 1e-9);
    }

    #[test]
    fn methods_and_kinds_of_answers_are_bounded() {
        let requests = Requests::default();
        for method in ["BREW", "PROPFIND"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            requests.answered(&asked(&method), StatusCode::OK, Duration::ZERO);
        }
        assert_eq!(requests.counted().iter().map(|one| one.method).collect::<Vec<_>>(), [OTHER_METHOD]);
        for status in 100..=999 {
            requests.answered(&asked(&Method::GET), StatusCode::from_u16(status).unwrap(), Duration::ZERO);
        }
        assert_eq!(requests.counted().len(), KINDS_MAX);
        for number in 0..2 * ROUTES_MAX {
            requests.route(&number.to_string());
        }
        assert_eq!(requests.routes.load().len(), ROUTES_MAX);
    }
}
