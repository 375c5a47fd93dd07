//! What became of a call that was cut, whether that is right, and the table of it.

use std::collections::BTreeMap;

use machina_core::{CallReport, Error, Outcome, Phase};
use machina_tests::farm::{Class, Cut, End, Side, Sizes};

/// What the caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The answer, after so many attempts.
    Answered(usize),
    /// That it failed, with what is known of its effect, after so many attempts.
    Failed(Option<Outcome>, Option<Phase>, u32),
}

impl Told {
    pub(super) fn of(answer: &Result<CallReport, Error>) -> Self {
        match answer {
            Ok(report) => Self::Answered(report.attempts.len()),
            Err(error) => {
                let context = error.context();
                Self::Failed(context.outcome, context.phase, context.attempts.unwrap_or_default())
            }
        }
    }

    fn words(self) -> String {
        match self {
            Self::Answered(1) => "answered".to_owned(),
            Self::Answered(attempts) => format!("answered by attempt {attempts}"),
            Self::Failed(outcome, phase, _) => {
                let outcome = outcome.map_or("nothing said", |outcome| match outcome {
                    Outcome::NotExecuted => "not executed",
                    Outcome::Unknown => "outcome unknown",
                    Outcome::Executed => "executed",
                });
                format!(
                    "failed, {outcome}, {}",
                    phase.map_or_else(|| "no phase".to_owned(), |phase| format!("{phase:?}"))
                )
            }
        }
    }
}

/// A call that was cut.
#[derive(Debug, Clone)]
pub(super) struct Attempted {
    /// Transport, era and form of the answer.
    pub(super) style: String,
    pub(super) class: Class,
    pub(super) cut: Cut,
    pub(super) sizes: Sizes,
    pub(super) told: Told,
    /// How often it ran.
    pub(super) executed: u32,
}

impl Attempted {
    /// What is wrong about it, if anything.
    pub(super) fn wrong(&self) -> Option<String> {
        let why = match self.class.is_repeatable() {
            // A server may close a connection once it has said all.
            _ if self.was_complete() && self.told != Told::Answered(1) => Some("the answer was complete, and is lost"),
            true => self.wrong_if_repeatable(),
            false => self.wrong_if_not(),
        }?;
        let Self { style, class, cut, told, executed, .. } = self;
        Some(format!("{style} {class:?} cut at {cut}: {why}; told {told:?}, executed {executed} times"))
    }

    /// Whether nothing was cut but what comes after the answer, and not rudely.
    fn was_complete(&self) -> bool {
        let Cut { side, after, end } = self.cut;
        side == Side::Response && after >= self.sizes.answer && end == End::Close
    }

    fn wrong_if_repeatable(&self) -> Option<&'static str> {
        match self.told {
            Told::Answered(_) if self.executed > 0 => None,
            Told::Answered(_) => Some("answered and never executed"),
            Told::Failed(..) => Some("it was not answered by another instance"),
        }
    }

    fn wrong_if_not(&self) -> Option<&'static str> {
        if self.executed > 1 {
            return Some("executed twice");
        }
        let request = self.cut.side == Side::Request;
        match self.told {
            Told::Answered(_) if self.executed == 0 => Some("answered and never executed"),
            // Only of a request of which nothing was taken can it be known that it did not arrive.
            Told::Answered(_) if request && self.cut.after == 0 => None,
            Told::Answered(_) if request => Some("repeated though it may have been executed"),
            Told::Answered(1) if self.cut.after >= self.sizes.answer => None,
            Told::Answered(1) => Some("answered before the answer was complete"),
            Told::Answered(_) => Some("repeated though it was executed"),
            Told::Failed(Some(Outcome::Unknown), Some(Phase::MaybeExecuted), _) => None,
            Told::Failed(Some(Outcome::NotExecuted), Some(Phase::NotSent), _) if request && self.cut.after == 0 => None,
            Told::Failed(..) => Some("not told that the outcome is unknown"),
        }
    }
}

/// What became of the calls, by what was cut.
#[derive(Debug)]
pub(super) struct Table(BTreeMap<String, BTreeMap<usize, String>>);

impl Table {
    pub(super) fn of(attempted: &[Attempted]) -> Self {
        let mut table: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
        for one in attempted {
            let side = if one.cut.side == Side::Request { "request" } else { "response" };
            let kind = if one.class.is_repeatable() { "repeatable" } else { "not repeatable" };
            let end = format!("{:?}", one.cut.end).to_lowercase();
            let row = format!("{}, {kind}, {side}, {end}", one.style);
            let ran = if one.executed > 0 { "executed" } else { "not executed" };
            table.entry(row).or_default().insert(one.cut.after, format!("{} ({ran})", one.told.words()));
        }
        Self(table)
    }

    /// One line for each row: neighbours with the same outcome are one range.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(row, cells)| format!("{row}: {}", ranges(cells).join("; "))).collect()
    }
}

fn ranges(cells: &BTreeMap<usize, String>) -> Vec<String> {
    let mut ranges: Vec<(usize, usize, &str)> = Vec::new();
    for (offset, outcome) in cells {
        match ranges.last_mut() {
            Some((_, last, same)) if same == outcome => *last = *offset,
            _ => ranges.push((*offset, *offset, outcome)),
        }
    }
    ranges.into_iter().map(|(first, last, outcome)| format!("{first}–{last} {outcome}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempted(class: Class, side: Side, after: usize, told: Told, executed: u32) -> Attempted {
        let sizes = Sizes { request: 500, response: 300, answer: 290 };
        Attempted { style: "x".into(), class, cut: Cut { side, after, end: End::Reset }, sizes, told, executed }
    }

    #[test]
    fn what_is_wrong_is_called_wrong() {
        let unknown = Told::Failed(Some(Outcome::Unknown), Some(Phase::MaybeExecuted), 1);
        let unsent = Told::Failed(Some(Outcome::NotExecuted), Some(Phase::NotSent), 1);
        let (request, response, once) = (Side::Request, Side::Response, Class::NotRepeatable);
        for (right, side, after, told, executed) in [
            (true, request, 0, unsent, 0),
            (true, request, 0, Told::Answered(2), 1),
            (true, request, 10, unknown, 0),
            (false, request, 10, unsent, 0),
            (false, request, 10, Told::Answered(2), 1),
            (true, response, 10, unknown, 1),
            (false, response, 10, unsent, 1),
            (false, response, 10, Told::Answered(2), 2),
            (false, response, 10, Told::Answered(1), 1),
            (true, response, 290, Told::Answered(1), 1),
            (true, response, 299, unknown, 1),
            (false, response, 299, Told::Answered(1), 0),
        ] {
            let one = attempted(once, side, after, told, executed);
            assert_eq!(one.wrong().is_none(), right, "{one:?}: {:?}", one.wrong());
        }
        for (right, told, executed) in [
            (true, Told::Answered(2), 2),
            (true, Told::Answered(1), 1),
            (false, Told::Answered(1), 0),
            (false, unknown, 1),
        ] {
            let one = attempted(Class::ReadOnly, response, 10, told, executed);
            assert_eq!(one.wrong().is_none(), right, "{one:?}");
        }
        for (right, class, told) in
            [(true, once, Told::Answered(1)), (false, once, unknown), (false, Class::ReadOnly, Told::Answered(2))]
        {
            let mut one = attempted(class, response, 290, told, 1);
            one.cut.end = End::Close;
            assert_eq!(one.wrong().is_none(), right, "{one:?}");
        }
    }

    #[test]
    fn neighbours_with_one_outcome_are_one_range() {
        let cells =
            BTreeMap::from([(0, "a".to_owned()), (1, "b".to_owned()), (2, "b".to_owned()), (9, "a".to_owned())]);
        assert_eq!(ranges(&cells), ["0–0 a", "1–2 b", "9–9 a"]);
    }
}
