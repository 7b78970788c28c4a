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

    /// True if the character is of the set.
    pub fn holds(&self, c: char) -> bool {
        let at = self.ranges.partition_point(|&(start, _)| start <= c);
        at > 0 && c <= self.ranges[at - 1].1
    }
}

/// Combining marks.
pub fn mark() -> &'static Category {
    static SET: OnceLock<Category> = OnceLock::new();
    SET.get_or_init(|| Category::new(r"[\p{M}&&\p{Age=9.0}]"))
}

/// Marks without a width of their own.
pub fn nonspacing() -> &'static Category {
    static SET: OnceLock<Category> = OnceLock::new();
    SET.get_or_init(|| Category::new(r"[\p{Mn}&&\p{Age=8.0}]"))
}

/// Control, format and private characters.
pub fn other() -> &'static Category {
    static SET: OnceLock<Category> = OnceLock::new();
    SET.get_or_init(|| Category::new(r"[[\p{Cc}\p{Cf}\p{Co}]&&\p{Age=8.0}]"))
}
