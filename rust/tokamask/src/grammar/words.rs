//! Finite sets of texts as tries over characters: property names and enumerations.

/// No word ends here.
pub const NO_WORD: u32 = u32::MAX;
/// Off the trie.
pub const OFF: u32 = u32::MAX;

/// A trie of words. Words are numbered in their sorted order, so those below a node are a range.
#[derive(Clone, Debug, Default)]
pub struct WordTrie {
    words: Vec<String>,
    first_edges: Vec<u32>,
    edges: Vec<(u32, u32)>,
    ends: Vec<u32>,
    ranges: Vec<(u32, u32)>,
}

impl WordTrie {
    /// Builds the trie; words given twice count once.
    pub fn new(mut words: Vec<String>) -> Self {
        // By characters, which for UTF-8 is the order of the bytes.
        words.sort_unstable();
        words.dedup();
        let mut trie = Self { words, ..Self::default() };
        // Breadth first: (range of words, bytes of the common prefix).
        let mut todo = std::collections::VecDeque::from([(0, trie.words.len(), 0)]);
        let mut nodes = 1;
        while let Some((low, high, depth)) = todo.pop_front() {
            trie.first_edges.push(trie.edges.len() as u32);
            trie.ranges.push((low as u32, high as u32));
            let ends = low < high && trie.words[low].len() == depth;
            trie.ends.push(if ends { low as u32 } else { NO_WORD });
            let mut at = low + usize::from(ends);
            while at < high {
                let Some(c) = trie.words[at][depth..].chars().next() else { break };
                let until = at + trie.words[at..high].partition_point(|w| w[depth..].starts_with(c));
                trie.edges.push((c.into(), nodes));
                nodes += 1;
                todo.push_back((at, until, depth + c.len_utf8()));
                at = until;
            }
        }
        trie.first_edges.push(trie.edges.len() as u32);
        trie
    }

    /// The words in order.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The number of a word.
    pub fn find(&self, word: &str) -> Option<u32> {
        self.words.binary_search_by(|w| w.as_str().cmp(word)).ok().map(|i| i as u32)
    }

    /// Edges of a node, ascending by character.
    pub fn children(&self, node: u32) -> &[(u32, u32)] {
        let node = node as usize;
        &self.edges[self.first_edges[node] as usize..self.first_edges[node + 1] as usize]
    }

    /// The child over one character; `OFF` if there is none.
    #[inline]
    pub fn child(&self, node: u32, c: u32) -> u32 {
        let children = self.children(node);
        if children.len() < 8 {
            return children.iter().find(|e| e.0 == c).map_or(OFF, |e| e.1);
        }
        children.binary_search_by_key(&c, |e| e.0).map_or(OFF, |i| children[i].1)
    }

    /// The word that ends at a node, or `NO_WORD`.
    pub fn word(&self, node: u32) -> u32 {
        self.ends[node as usize]
    }

    /// The words at and below a node.
    pub fn range(&self, node: u32) -> (u32, u32) {
        self.ranges[node as usize]
    }
}
