//! Where the next page of a list starts, as clients get it: sealed. A list goes by more than the keys
//! that it shows, so the place may be that of a key which is another tenant's.

use super::ApiError;
use crate::clock::Timestamp;
use crate::key::MintKeys;
use crate::manage::sealed::Purpose;
use crate::problem::Kind;
use crate::store::{KeyOrder, Position, Value};

const PURPOSE: Purpose<'static> = Purpose {
    context: &[b"\0sidekey cursor v1\0"],
    belongs_to: b"keys",
};

pub fn write(
    order: KeyOrder,
    position: &Position,
    mint_keys: &MintKeys,
) -> Result<String, ApiError> {
    let sealed = PURPOSE.seal(mint_keys, &place(order, position));
    sealed.ok_or_else(|| ApiError::new(Kind::Internal, "The page's end can't be told. Try again."))
}

/// The place of a cursor, and in which order it is one.
pub fn read(text: &str, mint_keys: &MintKeys) -> Option<(KeyOrder, Position)> {
    let place = PURPOSE.open(mint_keys, text)?;
    parse(&place)
}

fn place(order: KeyOrder, position: &Position) -> String {
    let Position {
        value,
        id,
        is_behind,
    } = position;
    // As versions write and read it that know one order only.
    if let (KeyOrder::NEWEST_FIRST, Value::Number(millis), true) = (order, value, is_behind) {
        return format!("{millis}:{id}");
    }
    let side = if *is_behind { '>' } else { '<' };
    let value = match value {
        Value::Number(number) => format!("n{number}"),
        Value::Text(text) => format!("t{text}"),
        Value::Nothing => "0".to_owned(),
    };
    format!("{}:{side}:{id}:{value}", order.as_str())
}

fn parse(place: &str) -> Option<(KeyOrder, Position)> {
    let mut parts = place.splitn(4, ':');
    let (first, second) = (parts.next()?, parts.next()?);
    let Some(id) = parts.next() else {
        let created_at = Timestamp::from_millis(first.parse().ok()?);
        let position = Position::behind(created_at, second.parse().ok()?);
        return Some((KeyOrder::NEWEST_FIRST, position));
    };
    let value = parts.next()?;
    let value = match value.split_at_checked(1)? {
        ("n", number) => Value::Number(number.parse().ok()?),
        ("t", text) => Value::Text(text.to_owned()),
        ("0", "") => Value::Nothing,
        _ => return None,
    };
    let position = Position {
        value,
        id: id.parse().ok()?,
        is_behind: match second {
            ">" => true,
            "<" => false,
            _ => return None,
        },
    };
    Some((KeyOrder::from_name(first)?, position))
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
        let id = "4fzN8cQ2pLrT".parse().unwrap();
        let position = Position::behind(Timestamp::from_millis(1_234_567_890), id);
        let text = write(KeyOrder::NEWEST_FIRST, &position, &keys).unwrap();
        assert_eq!(
            read(&text, &keys),
            Some((KeyOrder::NEWEST_FIRST, position.clone()))
        );
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

    #[test]
    fn every_place_of_every_order_leads_back() {
        let id = "4fzN8cQ2pLrT".parse().unwrap();
        let texts = ["", ":n1:", "ä\nid", "0"].map(|text| Value::Text(text.to_owned()));
        let values = texts
            .into_iter()
            .chain([0, -1, i64::MAX].map(Value::Number))
            .chain([Value::Nothing]);
        for value in values {
            for order in KeyOrder::ALL {
                for position in [
                    Position::behind(value.clone(), id),
                    Position::before(value.clone(), id),
                ] {
                    let text = place(order, &position);
                    let is_old = text.split(':').count() == 2;
                    // That of the first version holds a time.
                    if !is_old || matches!(value, Value::Number(0)) {
                        assert_eq!(parse(&text), Some((order, position)), "{text}");
                    }
                }
            }
        }
        for bad in [
            "",
            "1",
            "x:4fzN8cQ2pLrT",
            "name:>:4fzN8cQ2pLrT",
            "name:=:4fzN8cQ2pLrT:0",
            "id:>:4fzN8cQ2pLrT:0",
            "name:>:short:0",
            "name:>:4fzN8cQ2pLrT:",
            "name:>:4fzN8cQ2pLrT:nx",
            "name:>:4fzN8cQ2pLrT:01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
