//! The connection is cut at every byte.

use crate::endure::endure;

#[tokio::test]
async fn no_cut_at_any_byte_is_misjudged_or_executed_twice() {
    endure("T27").await;
}
