//! From a grammar and a vocabulary to bitmasks, token by token.
//!
//! A state is a small set of *threads*: a top frame by value and the id of a hash-consed stack of
//! frames below it. Bytes inside a string touch only the top frame; structure pushes and pops. What a
//! state allows is the union of what its threads allow, found by walking the vocabulary's trie.

mod ageing;
mod ahead;
mod batch;
pub mod cache;
mod inside;
mod lexer;
mod matcher;
mod memo;
mod recognizer;
mod refusal;
mod rows;
mod rules;
mod runs;
mod specials;
mod stacks;
mod store;
mod structure;
mod tables;

pub use batch::fill_batch;
pub use matcher::{CompiledGrammar, Limits, Matcher};
