//! Tokens that no text becomes.

use crate::bpe::Bpe;
use crate::error::Error;
use crate::formats::Definition;

/// Ids whose own bytes merge into something else. Where whole pieces become tokens, none.
pub fn unreachable(definition: &Definition) -> Result<Vec<u32>, Error> {
    if definition.settings.whole_pieces {
        return Ok(Vec::new());
    }
    let tokens: Vec<Option<&[u8]>> = definition.tokens.iter().map(Option::as_deref).collect();
    let bpe = Bpe::new(&tokens, &definition.merges)?;
    let added = |id: u32| definition.settings.added.iter().any(|token| token.id == id);
    let mut ids = Vec::new();
    let reached = |id: u32, bytes: &[u8], ids: &mut Vec<u32>| {
        ids.clear();
        bpe.encode_piece(bytes, ids);
        ids[..] == [id]
    };
    let tokens = (0..).zip(&tokens).filter_map(|(id, token)| Some((id, (*token)?)));
    Ok(tokens.filter(|&(id, token)| !reached(id, token, &mut ids) && !added(id)).map(|(id, _)| id).collect())
}
