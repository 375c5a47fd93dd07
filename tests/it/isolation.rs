//! What children do to themselves and to their pipes stays with them.

use crate::endure::endure;

#[tokio::test]
async fn trees_that_are_killed_stopped_and_driven_mad_leave_nothing_behind() {
    endure("T17").await;
}

#[tokio::test]
async fn a_child_that_reads_nothing_or_writes_too_much_is_not_felt_by_others() {
    endure("T19").await;
}
