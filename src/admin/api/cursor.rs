//! Where the next page of a list starts, as clients get it: sealed. A search goes by more than the keys
//! that it shows, so the place may be that of a key which is another tenant's.

use super::ApiError;
use crate::clock::Timestamp;
use crate::key::MintKeys;
use crate::manage::sealed::Purpose;
use crate::problem::Kind;
use crate::store::Position;

const PURPOSE: Purpose<'static> = Purpose {
    context: &[b"\0sidekey cursor v1\0"],
    belongs_to: b"keys",
};

pub fn write(position: Position, mint_keys: &MintKeys) -> Result<String, ApiError> {
    let place = format!("{}:{}", position.created_at.as_millis(), position.id);
    let sealed = PURPOSE.seal(mint_keys, &place);
    sealed.ok_or_else(|| ApiError::new(Kind::Internal, "The page's end can't be told. Try again."))
}

pub fn read(text: &str, mint_keys: &MintKeys) -> Option<Position> {
    let place = PURPOSE.open(mint_keys, text)?;
    let (millis, id) = place.split_once(':')?;
    Some(Position {
        created_at: Timestamp::from_millis(millis.parse().ok()?),
        id: id.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::key::MintKey;

    #[test]
    fn a_cursor_leads_back_and_says_nothing() {
        let keys = MintKeys::new(MintKey::new(&[1; 32]), vec![]);
        let position = Position {
            created_at: Timestamp::from_millis(1_234_567_890),
            id: "4fzN8cQ2pLrT".parse().unwrap(),
        };
        let text = write(position, &keys).unwrap();
        assert_eq!(read(&text, &keys), Some(position));
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for hidden in ["4fzN8cQ2pLrT", "1234567890"] {
            let hidden = hidden.as_bytes();
            assert!(!bytes.windows(hidden.len()).any(|window| window == hidden));
        }
        let made_up = URL_SAFE_NO_PAD.encode("1234567890:4fzN8cQ2pLrT");
        for other in ["", "%", &made_up, &text[1..], &text[..text.len() - 2]] {
            assert_eq!(read(other, &keys), None, "{other}");
        }
        let others = MintKeys::new(MintKey::new(&[2; 32]), vec![]);
        assert_eq!(read(&text, &others), None);
    }
}
