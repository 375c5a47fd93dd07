//! What the process says to scripts when it ends.

use std::process::ExitCode;

use machina_core::{Error, ErrorKind};

/// How a command ended, short of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As it should.
    Well,
    /// It worked, and the answer is bad: a tool said that it failed, or a
    /// service is not healthy.
    Badly,
    /// It worked, except for entries that could not be read.
    Partly,
    /// It was interrupted.
    Interrupted,
}

impl Ended {
    /// [`Ended::Well`] if `good`, otherwise [`Ended::Badly`].
    pub(crate) fn well_if(good: bool) -> Self {
        if good { Self::Well } else { Self::Badly }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Badly => 1,
            Self::Partly => 2,
            Self::Interrupted => 130,
        }
    }
}

/// The exit code of an error. The one place where a kind becomes a number;
/// `docs/reference/cli.md` lists them.
pub(crate) fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid | ErrorKind::Unsupported => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Unavailable | ErrorKind::Unreachable | ErrorKind::Overloaded => 4,
        ErrorKind::Lost | ErrorKind::Timeout => 5,
        ErrorKind::Unauthenticated | ErrorKind::Forbidden => 6,
        ErrorKind::Conflict => 7,
        ErrorKind::Rejected => 8,
        _ => 70,
    }
}

/// The exit code of a whole run.
pub(crate) fn exit_code(outcome: &Result<Ended, Error>) -> ExitCode {
    ExitCode::from(match outcome {
        Ok(ended) => ended.code(),
        Err(error) => code_of(error.kind()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table of exit codes: each code with the words in backticks.
    fn documented() -> Vec<(u8, Vec<String>)> {
        let page = include_str!("../../../../docs/reference/cli.md");
        let table = page.lines().skip_while(|line| !line.starts_with("| exit code |")).skip(2);
        let rows = table.take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let code = row.trim_start_matches('|').split('|').next().unwrap().trim().parse().unwrap();
            (code, row.split('`').skip(1).step_by(2).map(str::to_owned).collect())
        })
        .collect()
    }

    #[test]
    fn every_kind_of_error_has_its_documented_code() {
        let documented = documented();
        for kind in ErrorKind::ALL {
            let row = documented.iter().find(|(_, words)| words.iter().any(|word| word == kind.code()));
            let (code, _) = row.unwrap_or_else(|| panic!("cli.md does not list `{kind}`"));
            assert_eq!(*code, code_of(*kind), "{kind}");
        }
        for ended in [Ended::Well, Ended::Badly, Ended::Partly, Ended::Interrupted] {
            assert!(documented.iter().any(|(code, _)| *code == ended.code()), "{ended:?}");
        }
    }
}
