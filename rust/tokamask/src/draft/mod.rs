//! History to drafts: guesses of the next tokens from everything already seen, as one tree per step.
//!
//! A [`Drafter`] holds what all requests share, a [`DraftSession`] one request. To propose, candidates of all
//! sources are merged place by place (`evidence`), their acceptance probability is calibrated (`calibration`), and
//! the likeliest paths become a [`DraftTree`], as many as are worth their verification ([`VerifyCost`]).

mod calibration;
mod candidates;
mod context;
mod corpus;
mod cost;
mod counts;
mod drafter;
mod evidence;
mod frequent;
mod history;
mod recycled;
mod reliability;
mod session;
mod sources;
mod tree;

pub use corpus::{Corpus, Words};
pub use cost::VerifyCost;
pub use drafter::{Drafter, Settings};
pub use session::{DraftSession, TopK};
pub use tree::{Choice, DraftTree, Source};
