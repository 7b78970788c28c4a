//! The order of a vocabulary's tokens by their bytes, kept on disk: sorting is most of what has to be done before
//! the first mask of a vocabulary.
//!
//! A file need not be trusted: whoever reads an order checks that it is one, token by token, so that a damaged or forged
//! file costs the time of sorting and nothing else. Files lie in `TOKAMASK_CACHE`, or in the user's cache folder;
//! where that cannot be written, or the variable is empty, nothing is kept.

use std::path::{Path, PathBuf};

use crate::vocabulary::Vocabulary;

const MAGIC: &[u8; 8] = b"tokaordr";
const VERSION: u32 = 1;
/// Smaller vocabularies are sorted faster than a file is found.
const LEAST: usize = 20_000;

/// The folder of files that can be made again.
fn folder() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("TOKAMASK_CACHE") {
        return (!given.is_empty()).then(|| given.into());
    }
    let known = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = known.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("tokamask"))
}

/// The ids of all ordinary tokens that have bytes, by their bytes and then by id: from disk, or sorted now and kept there.
pub fn order(vocabulary: &Vocabulary) -> Vec<u32> {
    if vocabulary.len() < LEAST {
        return sorted(vocabulary);
    }
    match folder() {
        Some(folder) => order_in(&folder, vocabulary),
        None => sorted(vocabulary),
    }
}

fn order_in(folder: &Path, vocabulary: &Vocabulary) -> Vec<u32> {
    let path = folder.join(format!("order-{:016x}.bin", vocabulary.fingerprint()));
    if let Some(order) = std::fs::read(&path).ok().and_then(|file| read(&file)) {
        if is_order(&order, vocabulary) {
            return order;
        }
    }
    let order = sorted(vocabulary);
    // Whether it can be kept changes nothing.
    let _ = write(folder, &path, &order);
    order
}

fn ordinary(vocabulary: &Vocabulary) -> impl Iterator<Item = (u32, &[u8])> {
    let tokens = vocabulary.ordinary_tokens().map(|(id, bytes)| (id.get(), bytes));
    tokens.filter(|token| !token.1.is_empty())
}

fn sorted(vocabulary: &Vocabulary) -> Vec<u32> {
    // The first eight bytes beside the id: most comparisons look no further.
    let head = |bytes: &[u8]| {
        let mut head = [0; 8];
        let n = bytes.len().min(8);
        head[..n].copy_from_slice(&bytes[..n]);
        u64::from_be_bytes(head)
    };
    let mut tokens: Vec<(u64, &[u8], u32)> =
        ordinary(vocabulary).map(|(id, bytes)| (head(bytes), bytes, id)).collect();
    tokens.sort_unstable();
    tokens.into_iter().map(|token| token.2).collect()
}

/// True if it lists all ordinary tokens in their order: there is only one such list.
fn is_order(order: &[u32], vocabulary: &Vocabulary) -> bool {
    let spelled =
        |id: u32| vocabulary.bytes(id.into()).filter(|b| !b.is_empty() && !vocabulary.is_special(id.into()));
    let mut before: Option<(&[u8], u32)> = None;
    for &id in order {
        let Some(bytes) = spelled(id) else { return false };
        if before.is_some_and(|before| before >= (bytes, id)) {
            return false;
        }
        before = Some((bytes, id));
    }
    order.len() == ordinary(vocabulary).count()
}

fn read(file: &[u8]) -> Option<Vec<u32>> {
    let body = file.strip_prefix(MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let words = body.chunks_exact(4);
    words
        .remainder()
        .is_empty()
        .then(|| words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

/// Writes beside the name and renames, so that nobody reads half a file.
fn write(folder: &Path, path: &Path, order: &[u32]) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend(order.iter().flat_map(|id| id.to_le_bytes()));
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&beside, file).and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_and_not_trusted() {
        let tokens = [&b"b"[..], b"", b"ab", b"a", b"</s>", b"a", b"longer than eight", b"longer than eighu"];
        let vocabulary = Vocabulary::new(
            tokens.iter().map(|t| Some(t.to_vec())),
            [("</s>".to_owned(), 4.into())],
            [4.into()],
        )
        .expect("fits");
        let folder = std::env::temp_dir().join(format!("tokamask-order-{}", std::process::id()));
        let right = [3, 5, 2, 0, 6, 7];
        assert_eq!(order_in(&folder, &vocabulary), right, "sorted");
        let path = std::fs::read_dir(&folder).expect("made").next().expect("a file").expect("read").path();
        let whole = std::fs::read(&path).expect("written");
        assert_eq!(read(&whole).as_deref(), Some(&right[..]));
        assert!(is_order(&right, &vocabulary));
        for at in 0..whole.len() {
            let mut forged = whole.clone();
            forged[at] ^= 1;
            assert!(read(&forged).is_none_or(|order| !is_order(&order, &vocabulary)), "byte {at}");
            assert!(read(&whole[..at]).is_none_or(|order| !is_order(&order, &vocabulary)), "cut at {at}");
        }
        std::fs::write(&path, &whole[..20]).expect("damaged");
        assert_eq!(order_in(&folder, &vocabulary), right);
        assert_eq!(std::fs::read(&path).expect("there"), whole, "mended");
        std::fs::remove_dir_all(&folder).expect("gone");
    }
}
