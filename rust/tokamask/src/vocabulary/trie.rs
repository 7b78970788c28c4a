//! The tokens of a vocabulary as a byte trie in depth-first arrays.

/// What a trie spells: a token, and how many characters came before the part that is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The token.
    pub id: u32,
    /// Characters before the spelled part; 0 where whole tokens are spelled.
    pub chars: u32,
}

/// A byte trie. Node 0 is the root; the subtree of a node is the range `node..end(node)`, and the
/// items below it are one contiguous slice.
#[derive(Debug, Default)]
pub struct TokenTrie {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    depths: Vec<u32>,
    first_items: Vec<u32>,
    items: Vec<Item>,
    first_edges: Vec<u32>,
    edges: Vec<(u8, u32)>,
}

impl TokenTrie {
    /// Builds the trie of `words`, which must be sorted by their bytes. The root may own items.
    pub fn new(words: &[(&[u8], Item)]) -> Self {
        let mut trie = Self::default();
        let mut path = vec![trie.open(0, 0)];
        let mut previous: &[u8] = &[];
        for &(word, item) in words {
            let common = previous.iter().zip(word).take_while(|(a, b)| a == b).count();
            while path.len() > common + 1 {
                trie.close(path.pop());
            }
            for (depth, &byte) in word.iter().enumerate().skip(common) {
                path.push(trie.open(byte, depth as u32 + 1));
            }
            trie.items.push(item);
            previous = word;
        }
        while !path.is_empty() {
            trie.close(path.pop());
        }
        trie.first_items.push(trie.items.len() as u32);
        for node in 0..trie.bytes.len() {
            trie.first_edges.push(trie.edges.len() as u32);
            let mut child = node as u32 + 1;
            while child < trie.ends[node] {
                trie.edges.push((trie.bytes[child as usize], child));
                child = trie.ends[child as usize];
            }
        }
        trie.first_edges.push(trie.edges.len() as u32);
        trie
    }

    fn open(&mut self, byte: u8, depth: u32) -> u32 {
        self.bytes.push(byte);
        self.ends.push(0);
        self.depths.push(depth);
        self.first_items.push(self.items.len() as u32);
        self.bytes.len() as u32 - 1
    }

    fn close(&mut self, node: Option<u32>) {
        if let Some(node) = node {
            self.ends[node as usize] = self.bytes.len() as u32;
        }
    }

    /// Number of nodes.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if no word is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The last byte on the way to a node.
    #[inline]
    pub fn byte(&self, node: u32) -> u8 {
        self.bytes[node as usize]
    }

    /// The end of a node's subtree.
    #[inline]
    pub fn end(&self, node: u32) -> u32 {
        self.ends[node as usize]
    }

    /// Bytes from the root to a node.
    #[inline]
    pub fn depth(&self, node: u32) -> u32 {
        self.depths[node as usize]
    }

    /// Edges of a node, ascending by byte.
    #[inline]
    pub fn children(&self, node: u32) -> &[(u8, u32)] {
        &self.edges[self.first_edges[node as usize] as usize..self.first_edges[node as usize + 1] as usize]
    }

    /// The child over one byte.
    #[inline]
    pub fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let children = self.children(node);
        children.binary_search_by_key(&byte, |c| c.0).ok().map(|i| children[i].1)
    }

    /// Items that end exactly at a node.
    #[inline]
    pub fn items(&self, node: u32) -> &[Item] {
        &self.items[self.first_items[node as usize] as usize..self.first_items[node as usize + 1] as usize]
    }

    /// Items at and below a node.
    #[inline]
    pub fn items_below(&self, node: u32) -> &[Item] {
        let end = self.ends[node as usize] as usize;
        &self.items[self.first_items[node as usize] as usize..self.first_items[end] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_each_word(mut words in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..5), 0..30)) {
            words.sort();
            let list: Vec<(&[u8], Item)> = words.iter().enumerate().map(|(i, w)| (&w[..], Item { id: i as u32, chars: 0 })).collect();
            let trie = TokenTrie::new(&list);
            for (i, word) in words.iter().enumerate() {
                let node = word.iter().try_fold(0, |node, &b| trie.child(node, b)).expect("a path");
                prop_assert_eq!(trie.depth(node) as usize, word.len());
                prop_assert!(trie.items(node).iter().any(|item| item.id as usize == i));
                for n in 0..=word.len() {
                    let above = word[..n].iter().try_fold(0, |node, &b| trie.child(node, b)).expect("a path");
                    prop_assert!(trie.items_below(above).iter().any(|item| item.id as usize == i));
                }
            }
            prop_assert_eq!(trie.items_below(0).len(), words.len());
        }
    }
}
