//! Hides what may be a secret in a text, so that lines of a file can be shown whatever is wrong with them.
//!
//! Invariants: no character moves, so places found in the text still fit; where it can't be told, more is hidden rather than
//! less. References (`${env:X}`, `${file:path}`) lead to secrets and are none.

/// Names under which secrets are given: parameters of URLs, words of connection strings, keys.
pub const SECRET_NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pwd",
    "pgpassword",
    "secret",
    "token",
    "access_token",
    "accesstoken",
    "sslpassword",
    "api_key",
];

/// Whether secrets are given under this name.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// The same text with everything that may be a secret replaced by as many asterisks: passwords in URLs, and whatever follows
/// `password=` and its like.
#[must_use]
pub fn masked(text: &str) -> String {
    parameters(&addresses(text))
}

/// Hides the user's part of every URL behind its first colon.
fn addresses(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'));
        let (url, next) = after.split_at(end.unwrap_or(after.len()));
        let (address, query) = url.split_at(url.find('?').unwrap_or(url.len()));
        match address.rfind('@').and_then(|at| Some((address.find(':')?, at))) {
            Some((colon, at)) if colon < at => {
                shown.push_str(&address[..=colon]);
                hide(&address[colon + 1..at], &mut shown);
                shown.push_str(&address[at..]);
            }
            _ => shown.push_str(address),
        }
        shown.push_str(query);
        rest = next;
    }
    shown.push_str(rest);
    shown
}

/// Hides the value of every `name=value` whose name is one of [`SECRET_NAMES`].
fn parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (before, after) = rest.split_at(at + 1);
        shown.push_str(before);
        let name = before[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        rest = after;
        if !name.is_some_and(is_secret_name) {
            continue;
        }
        let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"' | '{'));
        let from = quote.map_or(0, char::len_utf8);
        let closes = |c: char| match quote {
            Some('{') => c == '}',
            Some(quote) => c == quote,
            None => c.is_whitespace() || matches!(c, '&' | ';' | '"' | '\'' | '`'),
        };
        let end =
            after[from..].find(|c| c == '\n' || closes(c)).map_or(after.len(), |at| from + at);
        shown.push_str(&after[..from]);
        hide(&after[from..end], &mut shown);
        rest = &after[end..];
    }
    shown.push_str(rest);
    shown
}

fn hide(secret: &str, shown: &mut String) {
    let mut rest = secret;
    while let Some(first) = rest.chars().next() {
        let is_reference = rest.starts_with("${env:") || rest.starts_with("${file:");
        let length = match rest.find('}').filter(|_| is_reference) {
            Some(end) => {
                shown.push_str(&rest[..=end]);
                end + 1
            }
            None => {
                shown.push('*');
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_without_moving_what_comes_behind() {
        for (text, shown) in [
            ("url: postgres://app:hunter2@db/app # x", "url: postgres://app:*******@db/app # x"),
            ("\"a://u:ä@h\", 'b://u:p@h'", "\"a://u:*@h\", 'b://u:*@h'"),
            ("a://u:${env:P}@h?x=1&token=abc", "a://u:${env:P}@h?x=1&token=***"),
            ("a://u@h:1/x b://h", "a://u@h:1/x b://h"),
            ("a://u:p@ss/w@h", "a://u:******@h"),
            ("host=db user=me password=hunter2 x=1", "host=db user=me password=******* x=1"),
            ("Server=tcp:db;User Id=me;Password=p@ss;", "Server=tcp:db;User Id=me;Password=****;"),
            ("password='a b' x", "password='***' x"),
            ("Pwd={a;b};x", "Pwd={***};x"),
            ("password=${env:PW}x", "password=${env:PW}*"),
            ("a://h;password=ä b", "a://h;password=* b"),
            ("tokens=1 name=token=x=", "tokens=1 name=token=**"),
            ("columns:\n  token: lower(token)", "columns:\n  token: lower(token)"),
            ("password=", "password="),
        ] {
            assert_eq!(masked(text), shown);
        }
    }
}
