//! Candidates for one place of the tree, with what each source says about them.

use super::tree::Source;

/// Most candidates kept for one place.
pub const CANDIDATES: usize = 24;
/// Opinions: three lengths of own history, six orders of shared counts, recycled logits.
pub const OPINIONS: usize = 10;
/// The opinion is silent: it does not know the context.
pub const SILENT: u16 = u16::MAX;

/// Opinions of the request's own history come first, then those of the shared counts.
pub const OWN: usize = 3;

/// The opinion of recycled logits is the last.
pub const RECYCLED: usize = OPINIONS - 1;

/// What is known about the next token.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Number of candidates.
    pub len: usize,
    /// Candidate tokens.
    pub tokens: [u32; CANDIDATES],
    /// For each candidate and opinion, the calibration cell that its support falls into.
    pub cells: [[u16; OPINIONS]; CANDIDATES],
    /// For each opinion, the cell of candidates it does not name.
    pub unnamed: [u16; OPINIONS],
    named_by: [Source; CANDIDATES],
    /// Which set of mixing weights applies.
    pub set: usize,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            len: 0,
            tokens: [0; CANDIDATES],
            cells: [[SILENT; OPINIONS]; CANDIDATES],
            unnamed: [SILENT; OPINIONS],
            named_by: [Source::Request; CANDIDATES],
            set: 0,
        }
    }
}

impl Evidence {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.len = 0;
        self.unnamed = [SILENT; OPINIONS];
        self.set = 0;
    }

    /// Who named a candidate, the request itself first.
    pub fn source(&self, candidate: usize) -> Source {
        self.named_by[candidate]
    }

    /// One opinion supports one candidate.
    pub fn support(&mut self, opinion: usize, token: u32, cell: u16) {
        let known = self.tokens[..self.len].iter().position(|&t| t == token);
        let at = match known {
            Some(at) => at,
            None if self.len < CANDIDATES => {
                self.tokens[self.len] = token;
                self.cells[self.len] = [SILENT; OPINIONS];
                self.named_by[self.len] = match opinion {
                    0..OWN => Source::Request,
                    RECYCLED => Source::Recycled,
                    _ => Source::Shared,
                };
                self.len += 1;
                self.len - 1
            }
            None => return,
        };
        self.cells[at][opinion] = cell;
    }

    /// Every opinion that knows the context says something about every candidate.
    pub fn complete(&mut self) {
        for cells in &mut self.cells[..self.len] {
            for (cell, &unnamed) in cells.iter_mut().zip(&self.unnamed) {
                if *cell == SILENT {
                    *cell = unnamed;
                }
            }
        }
    }
}
