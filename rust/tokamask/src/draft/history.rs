//! The tokens of one request, and where the newest of them stood before.

use super::context::{mix, Context, REACH};

/// Occurrences looked at for one context.
pub const OCCURRENCES: usize = 16;
/// Links followed at most along one chain, other contexts of the same bucket included.
const STEPS: usize = 16;

/// A place where the end of a context stood before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Position of the context's newest token.
    pub position: u32,
    /// How many tokens agree, up to [`REACH`].
    pub length: u32,
}

/// Links from each position to the one before it that ends the same `N` tokens (or shares their bucket).
#[derive(Clone, Debug)]
struct Chain {
    order: usize,
    heads: Vec<u32>,
    links: Vec<u32>,
}

impl Chain {
    fn new(order: usize, capacity: usize) -> Self {
        Self { order, heads: vec![0; capacity.next_power_of_two()], links: Vec::new() }
    }

    fn bucket(&self, newest_first: impl Iterator<Item = u32>) -> usize {
        let hash = newest_first.take(self.order).fold(7, |hash, token| mix(hash ^ u64::from(token)));
        hash as usize & (self.heads.len() - 1)
    }

    fn push(&mut self, tokens: &[u32]) {
        if tokens.len() < self.order {
            return self.links.push(0);
        }
        let bucket = self.bucket(tokens.iter().rev().copied());
        self.links.push(self.heads[bucket]);
        self.heads[bucket] = tokens.len() as u32; // position + 1
    }
}

/// Tokens of a request with their earlier occurrences. About 20 bytes a token.
#[derive(Clone, Debug)]
pub struct History {
    tokens: Vec<u32>,
    short: Chain,
    long: Chain,
}

impl History {
    /// An empty history that takes `capacity` tokens before it has to rehash.
    pub fn with_capacity(capacity: usize) -> Self {
        let capacity = capacity.max(64);
        Self {
            tokens: Vec::with_capacity(capacity),
            short: Chain::new(1, capacity),
            long: Chain::new(3, capacity),
        }
    }

    /// The tokens, oldest first.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Appends a token; it can be found at once.
    pub fn push(&mut self, token: u32) {
        if self.tokens.len() >= self.short.heads.len() {
            self.grow();
        }
        self.tokens.push(token);
        self.short.push(&self.tokens);
        self.long.push(&self.tokens);
    }

    fn grow(&mut self) {
        let capacity = self.tokens.len() * 2;
        for chain in [&mut self.short, &mut self.long] {
            *chain = Chain::new(chain.order, capacity);
            for end in 1..=self.tokens.len() {
                chain.push(&self.tokens[..end]);
            }
        }
    }

    /// The token after `position`, in the history followed by guesses (newest first, at most the context's reach).
    pub fn next(&self, position: u32, guesses: &[u32], ahead: usize) -> Option<u32> {
        let next = position as usize + 1;
        match self.tokens.get(next) {
            Some(&token) => Some(token),
            None => guesses.get((ahead + self.tokens.len()).checked_sub(next + 1)?).copied(),
        }
    }

    /// Where the end of `context` stood before, most recent first. The newest `ahead` of its tokens are guesses
    /// beyond the history; `above` are the occurrences of the context without its newest token.
    pub fn find(&self, context: &Context, ahead: usize, above: &[Occurrence], found: &mut Vec<Occurrence>) {
        found.clear();
        let newest_first = context.newest_first();
        let Some(&newest) = newest_first.first() else { return };
        let end = (self.tokens.len() + ahead) as u32; // one past the context itself
        for place in above {
            if place.position + 2 < end
                && self.next(place.position, &newest_first[1..], ahead - 1) == Some(newest)
            {
                let length = (place.length + 1).min(REACH as u32);
                found.push(Occurrence { position: place.position + 1, length });
            }
        }
        // A list that was not cut short holds every place of two tokens or more; then only single tokens are new.
        if ahead == 0 || above.len() >= OCCURRENCES {
            self.walk(&self.long, newest_first, end, found);
        }
        self.walk(&self.short, newest_first, end, found);
        found.sort_unstable_by_key(|place| std::cmp::Reverse(place.position));
    }

    fn walk(&self, chain: &Chain, newest_first: &[u32], end: u32, found: &mut Vec<Occurrence>) {
        if newest_first.len() < chain.order {
            return;
        }
        let mut at = chain.heads[chain.bucket(newest_first.iter().copied())];
        for _ in 0..STEPS {
            if at == 0 || found.len() >= OCCURRENCES {
                return;
            }
            let position = at - 1;
            at = chain.links[position as usize];
            if position + 1 >= end || found.iter().any(|place| place.position == position) {
                continue;
            }
            let older = self.tokens[..=position as usize].iter().rev();
            let length = older.zip(newest_first).take_while(|(a, b)| a == b).count();
            if length >= chain.order {
                found.push(Occurrence { position, length: length as u32 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every earlier place where the end of the text stood, most recent first, by comparing all of it.
    fn naive(text: &[u32]) -> Vec<Occurrence> {
        let mut found = Vec::new();
        for end in (1..text.len()).rev() {
            let length = text[..end].iter().rev().zip(text.iter().rev()).take_while(|(a, b)| a == b).count();
            if length > 0 {
                found.push(Occurrence { position: end as u32 - 1, length: length.min(REACH) as u32 });
            }
        }
        found
    }

    proptest! {
        #[test]
        fn finds_what_a_naive_search_finds(text in prop::collection::vec(0_u32..4, 0..16)) {
            let mut history = History::with_capacity(0);
            let mut found = Vec::new();
            for &token in &text {
                history.push(token);
            }
            history.find(&Context::of(&text), 0, &[], &mut found);
            prop_assert_eq!(&found, &naive(&text));
            for place in &found {
                let next = history.next(place.position, &[], 0);
                prop_assert_eq!(next, Some(text[place.position as usize + 1]));
            }
        }

        #[test]
        fn long_matches_survive_growth(text in prop::collection::vec(0_u32..1000, 3..40), noise in 0_usize..300) {
            let mut history = History::with_capacity(0);
            let mut whole = text.clone();
            whole.extend((0..noise as u32).map(|i| 2000 + i));
            whole.extend(&text);
            for &token in &whole {
                history.push(token);
            }
            let mut found = Vec::new();
            history.find(&Context::of(&whole), 0, &[], &mut found);
            let longest = found.iter().max_by_key(|place| place.length).copied();
            let expected = naive(&whole).into_iter().max_by_key(|place| place.length);
            prop_assert_eq!(longest.map(|l| l.length), expected.map(|e| e.length));
        }

        #[test]
        fn guesses_follow_like_text(text in prop::collection::vec(0_u32..3, 1..10), guesses in prop::collection::vec(0_u32..3, 1..4)) {
            let mut history = History::with_capacity(0);
            for &token in &text {
                history.push(token);
            }
            let mut whole = text.clone();
            let (mut above, mut found) = (Vec::new(), Vec::new());
            history.find(&Context::of(&whole), 0, &[], &mut above);
            for (i, &guess) in guesses.iter().enumerate() {
                whole.push(guess);
                history.find(&Context::of(&whole), i + 1, &above, &mut found);
                let expected = naive(&whole);
                for place in &found {
                    prop_assert!(expected.contains(place), "{:?} not in {:?}", place, expected);
                }
                // Nothing inside the text itself is missed.
                for place in expected.iter().filter(|place| (place.position as usize) < text.len()) {
                    prop_assert!(found.contains(place), "{:?} missed in {:?}", place, found);
                }
                std::mem::swap(&mut above, &mut found);
            }
        }
    }
}
