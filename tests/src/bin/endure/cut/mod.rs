//! T27: the connection is cut at every byte of a call and of its answer. Whatever
//! the offset, Machina must neither repeat what may have been executed, nor say
//! of a call what is not true.

mod http;
mod stdio;
mod verdict;

use crate::Scale;
use crate::report::Row;
use verdict::{Attempted, Table};

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let mut attempted = http::run(scale).await;
    attempted.extend(stdio::run(scale).await);
    row(&attempted, scale)
}

fn row(attempted: &[Attempted], scale: &Scale) -> Row {
    let wrong: Vec<String> = attempted.iter().filter_map(Attempted::wrong).collect();
    let twice = attempted.iter().filter(|one| !one.class.is_repeatable() && one.executed > 1).count();
    let mut details = vec![format!("seed {}; each line: offsets, and what became of the calls cut there", scale.seed)];
    details.extend(Table::of(attempted).lines());
    let mut broken: Vec<String> = wrong.iter().take(10).cloned().collect();
    if attempted.is_empty() {
        broken.push("nothing was cut".to_owned());
    }
    Row {
        name: "T27",
        figure: format!("{} calls cut: {} classified wrongly, {twice} executed twice", attempted.len(), wrong.len(),),
        target: "classified right at each offset, 0 executed twice",
        met: wrong.is_empty() && twice == 0 && !attempted.is_empty(),
        broken,
        details,
    }
}
