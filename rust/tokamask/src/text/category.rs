//! Sets of characters by general category, in the versions of Unicode that the library knows which
//! owns tokenizer.json: later characters are of none of them.

use std::sync::OnceLock;

use regex_syntax::hir::HirKind;

/// A set of characters as sorted ranges.
pub struct Category {
    ranges: Vec<(char, char)>,
}

impl Category {
    /// The characters of a class such as `\p{Mn}`; none if it is not a class.
    pub fn new(class: &str) -> Self {
        let hir = regex_syntax::parse(class);
        let ranges = match hir.as_ref().map(regex_syntax::hir::Hir::kind) {
            Ok(HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
                class.ranges().iter().map(|range| (range.start(), range.end())).collect()
            }
            _ => Vec::new(),
        };
        Self { ranges }
    }

    /// First and last characters of the ranges.
    pub fn into_ranges(self) -> Vec<(char, char)> {
        self.ranges
    }

    /// True if the character is of the set.
    pub fn holds(&self, c: char) -> bool {
        let at = self.ranges.partition_point(|&(start, _)| start <= c);
        at > 0 && c <= self.ranges[at - 1].1
    }
}

/// Combining marks.
pub fn mark() -> &'static Category {
    static SET: OnceLock<Category> = OnceLock::new();
    SET.get_or_init(|| Category::new(r"[[\p{M}&&\p{Age=9.0}]\x{1CF2}\x{1CF3}--\x{111C9}]"))
}

/// Marks without a width of their own.
pub fn nonspacing() -> &'static Category {
    static SET: OnceLock<Category> = OnceLock::new();
    let class = r"[[\p{Mn}&&\p{Age=8.0}]\x{1734}\x{1171E}--\x{1885}\x{1886}\x{A9BD}\x{111C9}]";
    SET.get_or_init(|| Category::new(class))
}

/// Control, format and private characters.
pub fn other() -> &'static Category {
    static SET: OnceLock<Category> = OnceLock::new();
    SET.get_or_init(|| Category::new(r"[[\p{Cc}\p{Cf}\p{Co}]&&\p{Age=8.0}]"))
}

/// Characters that the normal forms do not know.
pub fn later() -> &'static Category {
    static SET: OnceLock<Category> = OnceLock::new();
    SET.get_or_init(|| Category::new(r"[^\p{Age=9.0}]"))
}

/// ASCII punctuation and what Unicode calls so, as the pattern of a rule.
pub const PUNCTUATION: &str = r"[!-/:-@\[-`{-~[\p{P}&&\p{Age=8.0}]\x{166D}\x{111C9}]";
