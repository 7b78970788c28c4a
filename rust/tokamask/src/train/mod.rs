//! Training: pretokens are counted (in shards, if need be), and merges are learnt from the counts.
//!
//! Counting is the only pass over the text; [`counts::PretokenCounts`] merge, and their order does
//! not depend on the sharding, so training is the same for one machine and a hundred.

pub mod boundless;
pub mod bpe;
pub mod counter;
pub mod counts;
pub mod learn;
pub mod reach;
pub mod replay;
mod seeds;
mod segment;
pub mod superbpe;
pub mod superword;
mod table;
pub mod unigram;
pub mod wordpiece;
