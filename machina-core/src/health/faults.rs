//! Which failures say nothing about an instance, because the fault is our own: too
//! many open files, no memory, a resolver that answers nobody.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio::time::Instant;
use url::Host;

use crate::error::Error;
use crate::model::Endpoint;

/// How many names that could not be looked up are remembered.
const NAMES_MAX: usize = 16;

/// Whether one of the causes of `error` that the system names is `such`.
fn has_cause(error: &Error, such: impl Fn(&io::Error) -> bool) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(&such) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether this process, or its machine, is short of something.
pub(crate) fn is_own_fault(error: &Error) -> bool {
    // ENOMEM, ENFILE, EMFILE.
    const SHORT_OF: [i32; 3] = [12, 23, 24];
    let short = |cause: &io::Error| {
        let named = cfg!(unix) && cause.raw_os_error().is_some_and(|code| SHORT_OF.contains(&code));
        // What `fork` says where there may be no more processes.
        named || matches!(cause.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock)
    };
    has_cause(error, short)
}

/// Whether the other side refused the connection, which is more than silence.
pub(super) fn was_refused(error: &Error) -> bool {
    has_cause(error, |cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether the name of the host could not be looked up.
pub(super) fn is_unresolved(error: &Error) -> bool {
    // What the standard library says; the system has no code for it.
    has_cause(error, |cause| cause.to_string().contains("failed to lookup address information"))
}

/// The name that has to be looked up to reach `endpoint`; that of this very
/// machine is known without a resolver.
pub(super) fn name_of(endpoint: &Endpoint) -> Option<String> {
    match endpoint.host()? {
        Host::Domain(name) if name != "localhost" && !name.ends_with(".localhost") => Some(name),
        _ => None,
    }
}

/// What is known about the resolver. Knows no task, lock or clock.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// The names that were not found since one was, each once.
    failed: VecDeque<(Instant, String)>,
}

impl Resolver {
    /// A name was looked up.
    pub(super) fn resolved(&mut self) {
        self.failed.clear();
    }

    /// This name was not found. Says whether that is so for everyone: other names
    /// were not found within `window` either, and none was.
    pub(super) fn failed(&mut self, name: &str, now: Instant, window: Duration) -> bool {
        self.failed.retain(|(at, other)| other != name && now.saturating_duration_since(*at) < window);
        if self.failed.len() == NAMES_MAX {
            self.failed.pop_front();
        }
        self.failed.push_back((now, name.to_owned()));
        self.failed.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HttpEndpoint, StdioEndpoint};

    fn caused(cause: io::Error) -> Error {
        Error::unreachable("could not connect").caused_by(cause)
    }

    #[test]
    fn what_this_process_is_short_of_is_no_fault_of_the_instance() {
        for code in [12, 23, 24] {
            assert_eq!(is_own_fault(&caused(io::Error::from_raw_os_error(code))), cfg!(unix), "{code}");
            let deep = io::Error::other(caused(io::Error::from_raw_os_error(code)));
            assert_eq!(is_own_fault(&caused(deep)), cfg!(unix), "a cause of the cause");
        }
        assert!(is_own_fault(&caused(io::ErrorKind::WouldBlock.into())), "no more processes");
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
            assert!(!is_own_fault(&caused(io::Error::from(kind))), "{kind}");
        }
        assert!(!is_own_fault(&Error::unreachable("too many open files")), "words are no cause");
    }

    #[test]
    fn a_refusal_is_told_from_a_silence() {
        assert!(was_refused(&caused(io::ErrorKind::ConnectionRefused.into())));
        assert!(!was_refused(&caused(io::ErrorKind::TimedOut.into())) && !was_refused(&Error::unreachable("refused")));
    }

    #[tokio::test]
    async fn what_the_resolver_says_is_known() {
        let looked_up = tokio::task::spawn_blocking(|| {
            use std::net::ToSocketAddrs as _;
            ("no-such-host.invalid", 80).to_socket_addrs().map(drop)
        });
        let error = looked_up.await.unwrap().unwrap_err();
        assert!(is_unresolved(&caused(error)));
        assert!(!is_unresolved(&caused(io::ErrorKind::NotFound.into())));
    }

    #[test]
    fn only_what_has_to_be_looked_up_has_a_name() {
        let name = |url: &str| name_of(&HttpEndpoint::new(url).into());
        assert_eq!(name("https://Tools.example:8080/mcp").as_deref(), Some("tools.example"));
        for url in
            ["http://127.0.0.1/", "http://[::1]/", "http://localhost:1/", "http://a.localhost/", "http://${env:H}/"]
        {
            assert_eq!(name(url), None, "{url}");
        }
        assert_eq!(name_of(&StdioEndpoint::new("x", ["y"]).into()), None);
    }

    #[test]
    fn only_when_no_name_is_found_it_is_the_resolver() {
        const WINDOW: Duration = Duration::from_secs(30);
        let (mut resolver, now) = (Resolver::default(), Instant::now());
        assert!(!resolver.failed("a", now, WINDOW) && !resolver.failed("a", now, WINDOW), "one may just be gone");
        assert!(resolver.failed("b", now, WINDOW));
        resolver.resolved();
        assert!(!resolver.failed("a", now, WINDOW), "others are found");
        assert!(!resolver.failed("b", now + WINDOW, WINDOW), "that was long ago");
        for index in 0..1000 {
            resolver.failed(&index.to_string(), now, WINDOW);
        }
        assert_eq!(resolver.failed.len(), NAMES_MAX);
    }
}
