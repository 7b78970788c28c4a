//! What each source says about the next token, before it is weighed.

/// Kinds of opinion: three lengths of own history, the views of the shared counts, recycled logits, runners-up of the
/// newest token, a corpus, and the commonest tokens as a last resort.
pub const OPINIONS: usize = OWN + VIEWS.len() + 4;
/// Opinions of the request's own history come first, then those of the shared counts.
pub const OWN: usize = 3;
/// The opinion of recycled logits.
pub const RECYCLED: usize = OWN + VIEWS.len();
/// What the target held likely in place of the newest token: it often comes a little later.
pub const RUNNERS: usize = RECYCLED + 1;
/// The opinion of a corpus.
pub const CORPUS: usize = RUNNERS + 1;
/// The opinion of the commonest tokens; it never speaks of tokens that another opinion names.
pub const COMMON: usize = CORPUS + 1;
/// The opinion does not know the context.
pub const SILENT: u16 = u16::MAX;

use super::context::VIEWS;
use super::tree::Source;

/// One opinion names one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Support {
    /// The token.
    pub token: u32,
    /// The calibration cell: what kind of support this is.
    pub cell: u16,
    /// Whose opinion it is.
    pub opinion: u8,
}

/// Everything known about one place.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// All support, opinion by opinion. An opinion names a token once.
    pub supports: Vec<Support>,
    /// For each opinion, the cell of tokens that it could have named but did not.
    pub unnamed: [u16; OPINIONS],
    /// Cells of the commonest tokens begin here.
    pub common: u16,
    /// Which mixing weights apply.
    pub set: usize,
}

impl Default for Evidence {
    fn default() -> Self {
        Self { supports: Vec::with_capacity(128), unnamed: [SILENT; OPINIONS], common: 0, set: 0 }
    }
}

impl Evidence {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.supports.clear();
        self.unnamed = [SILENT; OPINIONS];
    }

    /// Notes that `opinion` names `token`.
    #[inline]
    pub fn support(&mut self, opinion: usize, token: u32, cell: usize) {
        self.supports.push(Support { token, cell: cell as u16, opinion: opinion as u8 });
    }
}

/// The source that an opinion belongs to.
#[inline]
pub fn source(opinion: u8) -> Source {
    match opinion as usize {
        0..OWN => Source::Request,
        RECYCLED | RUNNERS => Source::Recycled,
        CORPUS => Source::Corpus,
        _ => Source::Shared,
    }
}
