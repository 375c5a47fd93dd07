use std::io;

use super::*;

fn seen(error: Error) -> ProbeOutcome {
    let probed = Observation::of_failed_probe(&error).outcome;
    if error.kind() != ErrorKind::Timeout {
        assert_eq!(Observation::of_failed_call(&error).outcome, probed, "{error}");
    }
    probed
}

fn status(error: Error, status: u16) -> Error {
    error.at(Phase::Refused).with(|context| context.upstream_status = Some(status))
}

const SOFT: ProbeOutcome = ProbeOutcome::Fail { hard: false };
const HARD: ProbeOutcome = ProbeOutcome::Fail { hard: true };

/// T8: a server that wants credentials or patience, or takes no such request, is alive.
#[test]
fn living_servers_never_fail() {
    assert_eq!(seen(status(Error::rejected("wants credentials"), 401)), ProbeOutcome::AuthRequired);
    assert_eq!(seen(status(Error::rejected("not you"), 403)), ProbeOutcome::AuthRequired);
    assert_eq!(seen(status(Error::overloaded("later"), 429)), ProbeOutcome::Degraded);
    assert_eq!(seen(Error::rejected("no such method").at(Phase::Answered)), ProbeOutcome::Pass);
}

#[test]
fn silence_is_soft_and_an_end_is_hard() {
    assert_eq!(seen(Error::timeout("no answer")), SOFT);
    assert_eq!(seen(Error::lost("reset").at(Phase::MaybeExecuted)), SOFT);
    assert_eq!(seen(Error::unreachable("no route").at(Phase::NotSent)), SOFT);
    assert_eq!(seen(Error::lost("its process ended").with(|context| context.hard = true)), HARD);
    assert_eq!(Observation::of_failed_call(&Error::timeout("slow tool")).outcome, ProbeOutcome::Inconclusive);
}

#[test]
fn our_own_faults_are_inconclusive() {
    let caused = |code| Error::unreachable("could not connect").caused_by(io::Error::from_raw_os_error(code));
    if cfg!(unix) {
        for code in [12, 23, 24] {
            assert_eq!(seen(caused(code)), ProbeOutcome::Inconclusive, "{code}");
        }
    }
    assert_eq!(seen(caused(111)), SOFT, "refused");
    assert_eq!(seen(Error::unavailable("the registry is closing")), ProbeOutcome::Inconclusive);
    assert_eq!(seen(Error::internal("a bug")), ProbeOutcome::Inconclusive);
}

#[test]
fn the_last_line_of_stderr_says_why() {
    let error = Error::lost("its process ended").with(|c| c.stderr_tail = Some("a\nno such module\n\n".to_owned()));
    let seen = Observation::of_failed_probe(&error);
    assert_eq!(seen.message, "its process ended; stderr: no such module");
    assert_eq!(seen.stderr_tail, "a\nno such module\n\n");
}

#[test]
fn a_request_that_is_refused_says_nothing_against_the_server() {
    let refused =
        Error::rejected("no sampling").at(Phase::Refused).with(|context| context.upstream_code = Some(-32021));
    assert_eq!(Observation::of_failed_call(&refused).outcome, ProbeOutcome::Pass);
    assert_eq!(Observation::of_failed_probe(&refused).outcome, HARD, "a handshake that is refused does");
}
