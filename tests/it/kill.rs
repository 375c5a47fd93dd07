//! Many instances are killed in every way under load, and Machina itself.

use crate::endure::endure;

#[tokio::test]
async fn no_repeatable_call_fails_and_none_is_executed_twice_while_instances_die() {
    endure("T10").await;
}

#[tokio::test]
async fn nothing_is_executed_twice_or_left_behind_while_instances_and_trees_die() {
    endure("T28").await;
}

#[tokio::test]
async fn no_child_survives_kill_9_of_machina() {
    endure("T18").await;
}

#[tokio::test]
async fn what_is_wedged_is_found_in_time() {
    endure("T7").await;
}
