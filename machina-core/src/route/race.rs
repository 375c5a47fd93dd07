//! A call that is sent to a second instance because the first one is slow: the
//! faster answer wins, and the other attempt is cancelled.

use std::pin::pin;
use std::time::Duration;

use smallvec::smallvec;
use tokio::time::Instant;

use super::attempt::{Attempted, Seat};
use super::call::Carrying;
use super::classify::Failure;
use super::eligible::Rank;
use super::outbound::Outbound;
use super::report::Attempt;
use super::waiting::{Search, Seating};
use crate::error::{Error, Outcome, Phase};
use crate::model::InstanceId;

type Ended<A> = std::result::Result<(A, InstanceId), (Failure, Error)>;

impl<'a, O: Outbound> Carrying<'a, O> {
    /// Sends the call, and after `delay` to a second instance too, if there is one
    /// that is well, and not too many calls were sent twice of late.
    pub(super) async fn race(&mut self, seat: Seat<'a>, delay: Duration) -> Ended<O::Answer> {
        let on = self.on;
        on.route.view.traffic.hedges.deposit(&on.route.view.routing);
        let mut first = pin!(on.attempt(&seat, false));
        tokio::select! {
            biased;
            attempted = &mut first => return self.ended(&seat, attempted, false),
            () = tokio::time::sleep(delay) => {}
        }
        let Some(other) = self.second(seat.index) else {
            let attempted = first.await;
            return self.ended(&seat, attempted, false);
        };
        let began = Instant::now();
        let mut second = pin!(on.attempt(&other, false));
        let (attempted, second_won) = tokio::select! {
            biased;
            attempted = &mut first => (attempted, false),
            attempted = &mut second => (attempted, true),
        };
        let (winner, loser) = if second_won { (&other, &seat) } else { (&seat, &other) };
        if attempted.outcome.is_ok() {
            // Dropping its future cancels the other one.
            let duration = if second_won { began.elapsed() + delay } else { began.elapsed() };
            self.gave_up(loser, duration, !second_won);
            return self.ended(winner, attempted, second_won);
        }
        if let Err((failure, error)) = self.ended(winner, attempted, second_won) {
            self.failed(failure);
            self.search.tried.push(winner.index);
            tracing::debug!(%error, "one of two attempts failed");
        }
        let attempted = if second_won { first.await } else { second.await };
        let ended = self.ended(loser, attempted, !second_won);
        if ended.is_err() {
            self.search.tried.push(loser.index);
        }
        ended
    }

    fn second(&self, first: usize) -> Option<Seat<'a>> {
        let search = Search { tried: smallvec![first], safe: self.search.safe, ..Search::default() };
        match self.on.find(&search) {
            Seating::Seat(seat) if seat.rank == Rank::Eligible => {
                self.on.route.view.traffic.hedges.withdraw().then_some(seat)
            }
            _ => None,
        }
    }

    fn ended(&mut self, seat: &Seat<'_>, attempted: Attempted<O::Answer>, hedge: bool) -> Ended<O::Answer> {
        self.attempts.push(Attempt { hedge, ..attempted.attempt });
        attempted.outcome.map(|answer| (answer, seat.instance.id))
    }

    /// Notes the attempt that was not waited for.
    fn gave_up(&mut self, seat: &Seat<'_>, duration: Duration, hedge: bool) {
        seat.seen.cell.routing.gave_up(duration, Instant::now());
        let ended = Attempt::ended(seat.instance.id, duration, &seat.carried, None);
        let (phase, outcome) = (Some(Phase::MaybeExecuted), Some(Outcome::Unknown));
        self.attempts.push(Attempt { hedge, abandoned: true, phase, outcome, ..ended });
    }
}
