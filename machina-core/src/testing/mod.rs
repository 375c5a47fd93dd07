//! What tests of Machina, and of code that extends it, are written with. Only
//! compiled with the feature `testing`.

pub mod store_suite;
