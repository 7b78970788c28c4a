//! From text to pretokens: added tokens, split rules, and the byte alphabet of byte-level files.

pub mod added;
pub mod alphabet;
pub mod normalizer;
pub mod pattern;
pub mod pretokenizer;
pub mod rule;
