//! Draft trees as engines take them: flat, breadth-first, without the root.

/// What proposed a node. The numbers are part of the Python interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// The request's own prompt and output.
    Request = 1,
    /// What followed the same context in any request.
    Shared = 2,
    /// Runners-up of earlier logits.
    Recycled = 3,
    /// A fixed text.
    Corpus = 4,
    /// A grammar that leaves no choice.
    Forced = 5,
}

/// A node as the proposer chooses it: the parent is a place in the order of choice, -1 for the root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The guessed token.
    pub token: u32,
    /// The node it follows.
    pub parent: i32,
    /// Probability that the path down to here is accepted.
    pub prob: f32,
    /// Who named it first.
    pub source: Source,
}

/// Guessed tokens; all arrays have one element per node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DraftTree {
    /// The guessed tokens.
    pub token_ids: Vec<i32>,
    /// The parent of each node, -1 for the root; parents stand before children, breadth-first.
    pub parents: Vec<i32>,
    /// Probability that the path down to the node is accepted.
    pub probs: Vec<f32>,
    /// Numbers of [`Source`].
    pub sources: Vec<u8>,
    /// 1 for children of the root.
    pub depths: Vec<i32>,
}

impl DraftTree {
    /// Renumbers nodes breadth-first; likelier siblings stay first. Parents must stand before their children.
    pub fn from_choices(choices: &[Choice]) -> Self {
        let mut depths = Vec::with_capacity(choices.len());
        for choice in choices {
            let above = usize::try_from(choice.parent).map_or(0, |parent| depths[parent]);
            depths.push(above + 1);
        }
        let deepest = depths.iter().max().map_or(0, |&deepest| deepest as usize);
        let mut starts = vec![0_usize; deepest + 2];
        for &depth in &depths {
            starts[depth as usize + 1] += 1;
        }
        for depth in 0..=deepest {
            starts[depth + 1] += starts[depth];
        }
        let mut order = vec![0_usize; choices.len()];
        let mut next = starts.clone();
        for (i, &depth) in depths.iter().enumerate() {
            order[next[depth as usize]] = i;
            next[depth as usize] += 1;
        }
        let mut place = vec![-1_i32; choices.len()];
        for depth in 1..=deepest {
            let level = starts[depth]..starts[depth + 1];
            // Siblings stand together, below parents in their new order; the sort is stable.
            order[level.clone()]
                .sort_by_key(|&i| usize::try_from(choices[i].parent).map_or(-1, |p| place[p]));
            for at in level {
                place[order[at]] = at as i32;
            }
        }
        let mut tree = Self::with_capacity(choices.len());
        for &i in &order {
            let Choice { token, parent, prob, source } = choices[i];
            tree.token_ids.push(token as i32);
            tree.parents.push(usize::try_from(parent).map_or(-1, |p| place[p]));
            tree.probs.push(prob);
            tree.sources.push(source as u8);
            tree.depths.push(depths[i]);
        }
        tree
    }

    fn with_capacity(nodes: usize) -> Self {
        Self {
            token_ids: Vec::with_capacity(nodes),
            parents: Vec::with_capacity(nodes),
            probs: Vec::with_capacity(nodes),
            sources: Vec::with_capacity(nodes),
            depths: Vec::with_capacity(nodes),
        }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Nothing was drafted.
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_become_breadth_first() {
        let choice = |token, parent, prob| Choice { token, parent, prob, source: Source::Request };
        // chosen by probability: a, a-b, a-b-c, d, d-e, a-f
        let choices = [
            choice(1, -1, 0.9),
            choice(2, 0, 0.8),
            choice(3, 1, 0.7),
            choice(4, -1, 0.1),
            choice(5, 3, 0.05),
            choice(6, 0, 0.04),
        ];
        let tree = DraftTree::from_choices(&choices);
        assert_eq!(tree.token_ids, [1, 4, 2, 6, 5, 3]);
        assert_eq!(tree.parents, [-1, -1, 0, 0, 1, 2]);
        assert_eq!(tree.depths, [1, 1, 2, 2, 2, 3]);
        assert_eq!(DraftTree::from_choices(&[]), DraftTree::default());
    }
}
