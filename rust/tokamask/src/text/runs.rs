//! Runs of one character whose tokens all have the same priority: of two neighbours that may join
//! the leftmost pair joins first, whatever it makes.

/// Runs whose tokens are kept, as those of indented text are asked for at every line.
const KNOWN: usize = 64;

/// The tokens of the runs of one character.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Token by length; the character itself at 1.
    by_length: Vec<Option<u32>>,
    /// What runs of less than [`KNOWN`] characters come to.
    known: Vec<Vec<u32>>,
}

impl Runs {
    /// The tokens `(length, id)`, that of the character itself among them; `None` if that is not
    /// there or there is nothing to join.
    pub fn new(tokens: impl IntoIterator<Item = (usize, u32)>) -> Option<Self> {
        let mut by_length = Vec::new();
        for (length, id) in tokens {
            if by_length.len() <= length {
                by_length.resize(length + 1, None);
            }
            by_length[length] = Some(id);
        }
        if by_length.len() <= 2 || by_length[1].is_none() {
            return None;
        }
        let mut runs = Self { by_length, known: Vec::new() };
        let known = (0..KNOWN).map(|count| runs.joined(count)).collect();
        runs.known = known;
        Some(runs)
    }

    /// The token of the character itself.
    pub fn single(&self) -> u32 {
        self.token(1)
    }

    fn token(&self, length: usize) -> u32 {
        self.by_length.get(length).copied().flatten().unwrap_or(u32::MAX)
    }

    /// Appends the tokens of a run of `count` characters.
    pub fn join(&self, count: usize, ids: &mut Vec<u32>) {
        match self.known.get(count) {
            Some(known) => ids.extend_from_slice(known),
            None => ids.append(&mut self.joined(count)),
        }
    }

    fn joined(&self, count: usize) -> Vec<u32> {
        // What is before has no pair that may join, so only the last two have to be looked at.
        let mut lengths: Vec<usize> = Vec::new();
        for length in std::iter::repeat_n(1, count) {
            lengths.push(length);
            while let [.., left, right] = lengths[..] {
                if self.token(left + right) == u32::MAX {
                    break;
                }
                lengths.pop();
                lengths.pop();
                lengths.push(left + right);
            }
        }
        lengths.into_iter().map(|length| self.token(length)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule read literally.
    fn slow(runs: &Runs, count: usize) -> Vec<u32> {
        let mut lengths = vec![1; count];
        while let Some(at) =
            (1..lengths.len()).find(|&at| runs.token(lengths[at - 1] + lengths[at]) != u32::MAX)
        {
            lengths[at - 1] += lengths.remove(at);
        }
        lengths.into_iter().map(|length| runs.token(length)).collect()
    }

    #[test]
    fn joining_is_the_rule() {
        for known in
            [&[1, 2, 3, 4][..], &[1, 2, 4, 8], &[1, 2, 3, 4, 5, 6, 7, 8, 10, 12], &[1, 3], &[1, 2, 5]]
        {
            let runs = Runs::new(known.iter().map(|&length| (length, length as u32))).expect("valid");
            for count in 1..60 {
                let mut ids = Vec::new();
                runs.join(count, &mut ids);
                assert_eq!(ids, slow(&runs, count), "{known:?} {count}");
            }
        }
        assert!(Runs::new([(1, 0)]).is_none());
    }
}
