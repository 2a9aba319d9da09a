//! The file format of `server.properties`: Java's `.properties`.

use super::Properties;

/// Reads Java's properties format: `key=value`, `key:value` or `key value`; `#` and `!` start a
/// comment; a backslash at the end of a line continues it, elsewhere it escapes (`\n`, `\t`,
/// `\u00e4`, `\=`). Of two lines with one key the last counts. Nothing is an error but a broken
/// `\u` escape.
pub fn parse_properties(text: &str) -> Result<Properties, String> {
    let mut properties = Properties::new();
    let text = text.replace("\r\n", "\n");
    let mut lines = text.split(['\n', '\r']);
    'lines: while let Some(line) = lines.next() {
        let line = line.trim_start_matches([' ', '\t', '\x0c']);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = line.to_owned();
        while ends_with_continuation(&logical) {
            logical.pop();
            if logical.is_empty() {
                // Nothing to go on with: the next line may be a comment, too.
                continue 'lines;
            }
            match lines.next() {
                Some(next) => logical.push_str(next.trim_start_matches([' ', '\t', '\x0c'])),
                None => break,
            }
        }
        let (key, value) = split_key(&logical);
        properties.insert(unescape(key)?, unescape(value)?);
    }
    Ok(properties)
}

/// An odd number of backslashes at the end.
fn ends_with_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The key ends at the first separator that is not escaped; blanks around it do not count.
fn split_key(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if matches!(c, '=' | ':' | ' ' | '\t' | '\x0c') {
            let (key, rest) = line.split_at(at);
            let blank = [' ', '\t', '\x0c'];
            let rest = rest.trim_start_matches(blank);
            let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
            return (key, rest.trim_start_matches(blank));
        }
    }
    (line, "")
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut units: Vec<u16> = Vec::new();
    let mut chars = text.chars();
    loop {
        let next = chars.next();
        if next == Some('\\') {
            match chars.next() {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let unit = u16::from_str_radix(&digits, 16)
                        .ok()
                        .filter(|_| digits.len() == 4);
                    units.push(unit.ok_or_else(|| format!("Malformed \\uxxxx encoding in `{text}`"))?);
                    continue;
                }
                escaped => {
                    flush(&mut units, &mut plain);
                    plain.extend(escaped.map(|c| match c {
                        't' => '\t',
                        'n' => '\n',
                        'r' => '\r',
                        'f' => '\x0c',
                        other => other,
                    }));
                }
            }
            continue;
        }
        // Escapes are UTF-16: a character outside the first plane is two of them.
        flush(&mut units, &mut plain);
        match next {
            Some(c) => plain.push(c),
            None => return Ok(plain),
        }
    }
}

fn flush(units: &mut Vec<u16>, plain: &mut String) {
    plain.push_str(&String::from_utf16_lossy(units));
    units.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse_properties(text).unwrap().into_iter().collect()
    }

    #[test]
    fn a_file_is_read_as_java_reads_it() {
        let text = "# comment\n! comment\n\n  a=1\nb : 2\nc 3\nd\ne=\nf = x=y \ng=one,\\\n   two,\\\n\tthree\n\
                    h\\=i=j\\:k\nl=\\u00e4\\ud83d\\ude00\nm=c:\\\\dir\nn=a\\tb\\q\na=last\n";
        let expected = [
            ("a", "last"),
            ("b", "2"),
            ("c", "3"),
            ("d", ""),
            ("e", ""),
            ("f", "x=y "),
            ("g", "one,two,three"),
            ("h=i", "j:k"),
            ("l", "ä😀"),
            ("m", "c:\\dir"),
            ("n", "a\tbq"),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn line_ends_of_every_system_are_line_ends() {
        assert_eq!(pairs("a=1\r\nb=2\r\n"), pairs("a=1\nb=2"));
        assert_eq!(pairs("a=1,\\\r\n  2\r\nb=2"), pairs("a=1,2\nb=2"));
        assert_eq!(pairs("a=1\\"), pairs("a=1"));
        assert_eq!(pairs("a=1\\\n\nb=2"), pairs("a=1\nb=2"));
    }

    #[test]
    fn a_comment_is_not_continued_and_a_broken_escape_is_an_error() {
        assert_eq!(pairs("# x \\\na=1"), pairs("a=1"));
        assert!(parse_properties("a=\\u12").is_err());
        assert!(parse_properties("a=\\uzzzz").is_err());
    }
}
