//! The token-level half of LLM inference: text to tokens, grammar to masks, history to drafts,
//! context to the few tokens worth attending to.
//!
//! The modules import only downwards (a test keeps it so):
//!
//! ```text
//! draft -> mask -> grammar -> vocabulary -> ids, error
//! train -> tokenizer -> bpe, models, text, formats -> vocabulary
//! kernels -> error
//! ```
//!
//! `mask` and `tokenizer` meet only in [`vocabulary`].

pub mod bpe;
pub mod draft;
pub mod error;
pub mod formats;
pub mod grammar;
pub mod ids;
pub mod kernels;
pub mod mask;
pub mod models;
pub mod random;
pub mod text;
pub mod tokenizer;
pub mod train;
pub mod vocabulary;
