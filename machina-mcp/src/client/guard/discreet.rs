//! What is told about a server that has not been seen to speak MCP to those who
//! registered it from outside: whether it answered, and the class of its answer.
//! Nothing that it said, or the registry would read pages of its network to them.

use machina_core::{Error, ErrorKind, Phase};

/// The statuses that a caller, or a prober, does something about.
const TELLING: [u16; 4] = [401, 403, 429, 503];

/// `error` of a connection that did not come about, without the server's words.
pub(crate) fn discreet(error: Error) -> Error {
    let context = error.context();
    let ours = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Internal | ErrorKind::Unsupported);
    if ours || context.phase == Some(Phase::NotSent) {
        // Nothing was sent, so nothing of it is an answer.
        return error;
    }
    let message = match (context.upstream_code, context.upstream_status) {
        (Some(code), _) => format!("the server answered with the JSON-RPC error {code}"),
        (None, Some(status)) if TELLING.contains(&status) => format!("the server answered with HTTP {status}"),
        (None, Some(status)) => format!("the server answered with HTTP {}xx", status / 100),
        (None, None) => "the server did not answer as an MCP server".to_owned(),
    };
    let (phase, hard, retry_after) = (context.phase, context.hard, context.retry_after_ms);
    let status = context.upstream_status.filter(|status| TELLING.contains(status));
    let code = context.upstream_code;
    Error::new(error.kind(), message).with(|context| {
        (context.phase, context.outcome) = (phase, phase.map(Phase::outcome));
        (context.hard, context.retry_after_ms) = (hard, retry_after);
        (context.upstream_status, context.upstream_code) = (status, code);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_answer_is_told_but_its_class() {
        let said = |error: Error| {
            let error = discreet(error.with(|context| {
                context.upstream_data = Some("canary".into());
                context.stderr_tail = Some("canary".to_owned());
            }));
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
            (error.message().to_owned(), error.context().upstream_status)
        };
        let status = |status: u16| {
            let error = Error::rejected("canary").at(Phase::MaybeExecuted);
            error.with(|context| context.upstream_status = Some(status))
        };
        assert_eq!(said(status(404)), ("the server answered with HTTP 4xx".to_owned(), None));
        assert_eq!(said(status(418)).0, said(status(404)).0);
        assert_eq!(said(status(200)).0, "the server answered with HTTP 2xx");
        for telling in TELLING {
            assert_eq!(said(status(telling)).1, Some(telling));
        }
        let rpc = Error::rejected("canary").at(Phase::Answered).with(|context| context.upstream_code = Some(-32601));
        assert_eq!(said(rpc).0, "the server answered with the JSON-RPC error -32601");
        assert_eq!(
            said(Error::lost("canary").at(Phase::MaybeExecuted)).0,
            "the server did not answer as an MCP server"
        );
    }

    #[test]
    fn what_a_program_needs_is_kept_and_what_was_not_sent_is_told_whole() {
        let error = Error::overloaded("canary").at(Phase::Refused).retry_after(std::time::Duration::from_secs(2));
        let error = discreet(error.with(|context| (context.hard, context.upstream_status) = (true, Some(429))));
        let context = error.context();
        assert_eq!((error.kind(), context.retry_after_ms), (ErrorKind::Overloaded, Some(2_000)));
        assert_eq!((context.phase, context.hard, context.upstream_status), (Some(Phase::Refused), true, Some(429)));
        let refused = Error::unreachable("could not connect to a:1: connection refused").at(Phase::NotSent);
        assert_eq!(discreet(refused.clone()).message(), refused.message());
    }
}
