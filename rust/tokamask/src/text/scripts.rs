//! Cutting where the script changes, by the table of the library which owns tokenizer.json: Unicode 9 with a few
//! characters elsewhere. Kana count as Han; spaces and later characters stay with what comes before them.

use std::sync::OnceLock;

use super::category::Category;

/// Scripts that are as Unicode has them.
#[rustfmt::skip]
const PLAIN: &[&str] = &[
    "Adlam", "Ahom", "Anatolian_Hieroglyphs", "Avestan", "Balinese", "Bamum", "Bassa_Vah", "Batak",
    "Bengali", "Bhaiksuki", "Bopomofo", "Brahmi", "Braille", "Buginese", "Buhid",
    "Canadian_Aboriginal", "Carian", "Caucasian_Albanian", "Chakma", "Cham", "Cherokee", "Coptic",
    "Cuneiform", "Cypriot", "Cyrillic", "Deseret", "Duployan", "Egyptian_Hieroglyphs", "Elbasan",
    "Ethiopic", "Georgian", "Glagolitic", "Gothic", "Grantha", "Greek", "Gujarati", "Gurmukhi",
    "Hangul", "Hanunoo", "Hatran", "Hebrew", "Imperial_Aramaic", "Inscriptional_Pahlavi",
    "Inscriptional_Parthian", "Javanese", "Kaithi", "Kannada", "Kayah_Li", "Kharoshthi", "Khmer",
    "Khojki", "Khudawadi", "Lao", "Latin", "Lepcha", "Limbu", "Linear_A", "Linear_B", "Lisu",
    "Lycian", "Lydian", "Mahajani", "Malayalam", "Mandaic", "Manichaean", "Marchen", "Meetei_Mayek",
    "Mende_Kikakui", "Meroitic_Cursive", "Meroitic_Hieroglyphs", "Miao", "Modi", "Mongolian", "Mro",
    "Multani", "Myanmar", "Nabataean", "New_Tai_Lue", "Newa", "Nko", "Ogham", "Ol_Chiki",
    "Old_Hungarian", "Old_Italic", "Old_North_Arabian", "Old_Permic", "Old_Persian",
    "Old_South_Arabian", "Old_Turkic", "Oriya", "Osage", "Osmanya", "Pahawh_Hmong", "Palmyrene",
    "Pau_Cin_Hau", "Phags_Pa", "Phoenician", "Psalter_Pahlavi", "Rejang", "Runic", "Samaritan",
    "Saurashtra", "Sharada", "Shavian", "Siddham", "SignWriting", "Sinhala", "Sora_Sompeng",
    "Sundanese", "Syloti_Nagri", "Syriac", "Tagalog", "Tagbanwa", "Tai_Le", "Tai_Tham", "Tai_Viet",
    "Takri", "Tamil", "Tangut", "Telugu", "Thaana", "Thai", "Tibetan", "Tifinagh", "Tirhuta",
    "Ugaritic", "Vai", "Warang_Citi", "Yi",
];

/// Those that are not.
const OTHER: [&str; 6] = [
    r"[[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}&&\p{Age=9.0}]\x{30FC}]",
    r"[[[\p{Script=Common}&&\p{Age=9.0}]\x{589}\x{61C}]--[ \x{30FC}]]",
    r"[[\p{Script=Arabic}&&\p{Age=9.0}]--\x{61C}]",
    r"[[\p{Script=Armenian}&&\p{Age=9.0}]--\x{589}]",
    r"[[\p{Script=Devanagari}&&\p{Age=9.0}]\x{953}\x{954}]",
    r"[[\p{Script=Inherited}&&\p{Age=9.0}]--\x{953}\x{954}]",
];

/// First and last character of each stretch of a script, and the number of the script.
fn table() -> &'static [(char, char, u8)] {
    static TABLE: OnceLock<Vec<(char, char, u8)>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let plain = PLAIN.iter().map(|name| format!(r"[\p{{Script={name}}}&&\p{{Age=9.0}}]"));
        let classes = plain.chain(OTHER.map(str::to_owned));
        let mut table: Vec<(char, char, u8)> = (0u8..)
            .zip(classes)
            .flat_map(|(script, class)| {
                let ranges = Category::new(&class).into_ranges();
                ranges.into_iter().map(move |(start, end)| (start, end, script))
            })
            .collect();
        table.sort_unstable();
        table
    })
}

/// The number of a character's script; `None` for those that stay with what comes before.
fn script(c: char) -> Option<u8> {
    let table = table();
    let at = table.partition_point(|&(start, ..)| start <= c);
    let &(_, end, script) = table.get(at.checked_sub(1)?)?;
    (c <= end).then_some(script)
}

/// Appends the stretches of one script each, in bytes. What comes before the first character of any is lost.
pub fn cut(text: &str, spans: &mut Vec<(usize, usize)>) {
    let (mut last, mut start) = (None, None);
    for (at, c) in text.char_indices() {
        let script = script(c);
        if script.is_none() || script == last {
            continue;
        }
        if let Some(start) = start.replace(at) {
            spans.push((start, at));
        }
        last = script;
    }
    spans.extend(start.map(|start| (start, text.len())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_has_characters_and_none_shares_them() {
        assert!(table().windows(2).all(|pair| pair[0].1 < pair[1].0));
        let scripts = PLAIN.len() + OTHER.len();
        assert!((0..scripts).all(|script| table().iter().any(|row| usize::from(row.2) == script)));
    }

    #[test]
    fn kana_are_han_and_leading_spaces_are_lost() {
        let mut spans = Vec::new();
        cut("  a b \u{30fc}\u{30ab}\u{6f22} \u{44f}", &mut spans);
        assert_eq!(spans, [(2, 6), (6, 16), (16, 18)]);
        spans.clear();
        cut("   ", &mut spans);
        assert_eq!(spans, []);
    }
}
