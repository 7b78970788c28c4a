//! From text to pretokens: added tokens, split rules, and the byte alphabet of byte-level files.

pub mod added;
pub mod alphabet;
pub mod base64;
pub mod category;
pub mod charsmap;
pub mod decoder;
pub mod levels;
pub mod normalizer;
pub mod pattern;
pub mod pieces;
pub mod pretokenizer;
pub mod rule;
pub mod runs;
pub mod scripts;
