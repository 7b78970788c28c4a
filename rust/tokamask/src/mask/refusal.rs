//! Why a token was refused: what was expected instead, at which of its bytes, and where in the document.

/// The JSON pointer of the place at which a JSON text breaks off: the value, or the object whose next name is awaited.
pub fn json_pointer(text: &[u8]) -> String {
    /// An object, with the name that was read last and belongs to the value awaited; or an array.
    enum Level {
        Object(Option<String>),
        Array(usize),
    }
    let mut path: Vec<Level> = Vec::new();
    let (mut name, mut is_name) = (Vec::new(), false);
    let (mut inside, mut escaped) = (false, false);
    for &byte in text {
        if inside {
            if byte == b'"' && !escaped {
                inside = false;
                if let (true, Some(Level::Object(known))) = (is_name, path.last_mut()) {
                    let quoted = [b"\"", name.as_slice(), b"\""].concat();
                    let plain = || String::from_utf8_lossy(&name).into_owned();
                    *known = Some(serde_json::from_slice(&quoted).unwrap_or_else(|_| plain()));
                }
            } else {
                escaped = byte == b'\\' && !escaped;
                name.push(byte);
            }
            continue;
        }
        match byte {
            b'"' => {
                (inside, escaped) = (true, false);
                is_name = matches!(path.last(), Some(Level::Object(None)));
                name.clear();
            }
            b'{' => path.push(Level::Object(None)),
            b'[' => path.push(Level::Array(0)),
            b'}' | b']' => {
                path.pop();
            }
            b',' => match path.last_mut() {
                Some(Level::Object(known)) => *known = None,
                Some(Level::Array(place)) => *place += 1,
                None => {}
            },
            _ => {}
        }
    }
    let mut out = String::new();
    for level in path {
        match level {
            Level::Object(None) => {}
            Level::Object(Some(name)) => {
                out.push('/');
                out.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Level::Array(place) => {
                out.push('/');
                out.push_str(&place.to_string());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::json_pointer;

    #[test]
    fn pointers_name_the_place() {
        let cases: [(&[u8], &str); 7] = [
            (b"", ""),
            (b"{\"a\": 1, \"b\": [true, {", "/b/1"),
            (b"{\"a\\\"~\": \"[{", "/a\"~0"),
            (b"{\"a\": {\"b\": 1}, \"c", ""),
            (b"[[], [1], [", "/2/0"),
            (b"{\"b/c\": 2", "/b~1c"),
            (b"{\"a\":\"x\"}", ""),
        ];
        for (text, pointer) in cases {
            assert_eq!(json_pointer(text), pointer);
        }
    }
}
